"""The library prints nothing by itself; commands show what it tells."""

import logging

from training.telling import logger, show, tell


def test_a_program_hears_and_nothing_is_printed(capsys, caplog):
    with caplog.at_level(logging.INFO, logger.name):
        tell("step 1")
    assert caplog.messages == ["step 1"] and capsys.readouterr() == ("", "")


def test_a_command_prints_each_line_once(shown):
    show()
    tell("步 1 %d")
    assert shown.readouterr() == ("步 1 %d\n", "")
