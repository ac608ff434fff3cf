"""See what encodings of positions do, as one page: python -m scripts.position_report --help"""

from training.command import run

from . import prog


def main() -> None:
    from rope.report.config import ReportConfig
    from rope.report.report import position_report
    from training.flags import parse_flags

    position_report(parse_flags(ReportConfig, prog=prog("position_report")))


if __name__ == "__main__":
    run(main)
