"""Campaigns: processes are killed or stopped, machines are lost, and files are damaged."""
