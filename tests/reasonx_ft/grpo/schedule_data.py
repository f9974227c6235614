"""The noise schedule of Stable Diffusion, by diffusers."""

from __future__ import annotations


def alphas_of_stable_diffusion(*, zero_snr: bool = False) -> list[float]:
    """Cumulative alphas of the 1000 training times; with `zero_snr`, rescaled to end in pure noise."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
                              rescale_betas_zero_snr=zero_snr)  # fmt: skip
    found: list[float] = scheduler.alphas_cumprod.double().tolist()
    return found
