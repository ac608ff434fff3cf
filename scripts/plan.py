"""Does a preset fit a TPU slice? python -m scripts.plan --help"""

from training.command import run

from . import prog


def main() -> None:
    import tyro

    from pegasus_zh.plan import PlanConfig, plan_preset

    plan_preset(tyro.cli(PlanConfig, prog=prog("plan")))


if __name__ == "__main__":
    run(main)
