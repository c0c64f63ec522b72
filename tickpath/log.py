# SPDX-License-Identifier: Apache-2.0
"""Logging of a command: structlog to standard error, set up once by whoever runs, never at import."""

from __future__ import annotations

import argparse
import logging
import sys

import structlog

from tickpath import config


def set_up(args: argparse.Namespace | None = None) -> config.CommonConfig:
    """Loads the common configuration, points structlog at it, and warns of unknown TICKPATH_* variables.

    The first call of a command that logs. Raises ConfigError.
    """
    common = config.load(config.CommonConfig, config.COMMON, args)
    form = common.log_format
    if form == "auto":
        form = "console" if sys.stderr.isatty() else "logfmt"
    renderer: structlog.typing.Processor
    if form == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    elif form == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if form == "console" else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[common.log_level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logger = structlog.get_logger()
    for line in config.unknown_variables():
        logger.warning(line)
    return common
