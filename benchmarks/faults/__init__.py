"""Campaigns in which processes are killed or stopped, and machines are lost."""
