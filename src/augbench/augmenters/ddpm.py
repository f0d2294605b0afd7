"""DDPM: Stable Diffusion 1.5 fine-tuned by DreamBooth with LoRA-C3Lier (In&Out, VISAPP 2024, section 3.2).

Declared here so that the paper's grid can be planned; fine-tuning and generation are not part of augbench yet.
"""

from __future__ import annotations

from augbench.core.contracts import Augmenter, Shots


class DDPM(Augmenter):
    """At zero-shot it is fine-tuned on negatives alone, so its pool does not depend on shots; else on the shots."""

    title = "DDPM (SD 1.5 + DreamBooth + LoRA-C3Lier)"
    paper = "In&Out, VISAPP 2024"
    learns = True
    uses_gpu = True
    not_runnable = "its fine-tuning and generation are not part of augbench yet; it can be planned"

    def reads(self, shots: Shots) -> frozenset[str]:
        """Negatives at zero-shot (50 of them are the instances), shots otherwise."""
        return frozenset({"shots"} if shots else {"negatives"})
