"""See what encodings of positions do, as one page: python -m scripts.position_report --help"""

from training.command import run

from . import prog


def main() -> None:
    import tyro

    from rope.report.config import ReportConfig
    from rope.report.report import position_report

    position_report(tyro.cli(ReportConfig, prog=prog("position_report")))


if __name__ == "__main__":
    run(main)
