"""`python -m upweight` is the console script."""

from upweight.cli import main

if __name__ == "__main__":
    main()
