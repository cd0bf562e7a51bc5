# SPDX-License-Identifier: Apache-2.0
"""What the scripts of scripts/bench share."""
