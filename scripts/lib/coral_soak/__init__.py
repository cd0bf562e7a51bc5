# SPDX-License-Identifier: Apache-2.0
"""scripts/soak: everything at once on one mount, against a model of what every byte must be."""
