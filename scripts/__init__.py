"""The commands, a few lines each: python -m scripts.NAME, or pegasus-zh NAME where the project is installed."""


def prog(name: str) -> str:
    """What calls a command, as its usage says it. Installed, this package is pegasus_zh.commands."""
    return f"python -m scripts.{name}" if __name__ == "scripts" else f"pegasus-zh {name}"
