"""The `tidegate` command as a child of `engine.process`: it ends at once when whoever started it is gone."""

from engine.cli import main
from engine.parent import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    main(prog_name="tidegate")
