"""`python -m deepcnn` is `deepcnn`."""

from deepcnn.cli.main import main

main()
