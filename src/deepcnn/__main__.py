"""`python -m deepcnn` is `deepcnn`."""

from deepcnn.cli import main

main()
