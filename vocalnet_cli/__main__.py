"""`python -m vocalnet_cli` is the `vocalnet` command."""

from vocalnet_cli.cli.app import main

if __name__ == "__main__":
    main()
