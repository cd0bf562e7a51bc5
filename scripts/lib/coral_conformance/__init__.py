# SPDX-License-Identifier: Apache-2.0
"""Public test suites on a directory of the disk and on a branch, side by side: the parts of scripts/conformance/run."""
