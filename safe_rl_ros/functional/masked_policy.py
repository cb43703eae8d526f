"""The policy that a safety critic masks: pi restricted to actions of acceptable risk, arXiv:2010.14603."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_risk(risk: Tensor, threshold: float) -> Tensor:
    """Return the risk (B,) of the masked policy's action among K samples of the policy.

    ``risk`` (K, B) of samples in the order drawn. The first that is at most ``threshold`` is a draw of the policy
    restricted to {a: Q_safe(s, a) <= eps}; where there is none, the least risk runs, as in the filter.
    """
    acceptable = risk <= threshold
    first = acceptable.to(torch.uint8).argmax(dim=0, keepdim=True)
    chosen = risk.gather(0, first)[0]
    return torch.where(acceptable.any(dim=0), chosen, risk.amin(dim=0))
