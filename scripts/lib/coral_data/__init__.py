# SPDX-License-Identifier: Apache-2.0
"""The parts of scripts/data. Only series.py needs more than Python's own library."""
