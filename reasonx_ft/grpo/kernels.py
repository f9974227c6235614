"""One Gaussian step of a noisy sampler, for rectified flows and variance-preserving diffusion alike.

All steps live in rectified-flow coordinates: x = (1 - t) clean + t noise, with t from 1 (noise) to 0 (map). A
variance-preserving state alpha clean + sigma noise is the same thing divided by alpha + sigma, at time
t = sigma / (alpha + sigma); the map is linear with a constant Jacobian, so ratios and divergences don't change under
it, and the published SDE for flows applies to Marigold-type models as it stands.

With a network's estimates of clean map and noise, both kernels are

    x' ~ N((1 - t') clean + w noise, s^2)

and differ in w and s alone. `step` both samples (noise given) and replays (next state given), so that the two
can't drift apart. Times are plain numbers and the coefficients float64; tensors should be float32, whatever the
network computes in: a state rounded to bfloat16 shifts the ratio by more than a usual clip range.

Sources: Flow-GRPO (arXiv 2505.05470) for flow-sde, DDIM (2010.02502) for ddim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from reasonx_eval.errors import UsageError, unknown

Name = Literal["flow-sde", "ddim"]
Prediction = Literal["v_prediction", "epsilon", "sample"]

NAMES: Final[tuple[Name, ...]] = get_args(Name)
# from here on, predicted noise says nothing of the map: an error of it comes back a thousandfold
_PURE_NOISE: Final = 0.999
# of a step; a time nearer to 1 counts as 1: some checkpoints write an alpha of 2e-4 where they mean zero
_NEAR_ONE: Final = 0.1


@dataclass(frozen=True)
class Kernel:
    """How much noise a step adds, and how its drift makes up for it.

    name : flow-sde (g = a sqrt(t / (1 - t)), s = g sqrt(dt)) or ddim (s = eta t' sqrt(1 - r^2), r the quotient of the
        noise-to-map ratios after and before)
    noise_level : a or eta of these formulas, >= 0; 0 makes both the deterministic step

    Raises
    ------
    UsageError
        An unknown name; a level below 0, or above 1 for ddim, where it is a share of the next state's variance.
    """

    name: Name
    noise_level: float

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise unknown("kernel", self.name, NAMES)
        highest = 1.0 if self.name == "ddim" else math.inf
        if not (0 <= self.noise_level <= highest and math.isfinite(self.noise_level)):
            limit = "0 to 1" if self.name == "ddim" else "a finite number from 0 on"
            raise UsageError(f"noise level {self.noise_level} of kernel '{self.name}'; needs {limit}")


#: the deterministic step
ODE: Final = Kernel("ddim", 0.0)


@dataclass(frozen=True)
class Estimate:
    """What a network thinks of a state: which map and which noise it is made of.

    clean, noise : same shape, float32; (1 - t) clean + t noise is the state
    """

    clean: Tensor = field(repr=False)
    noise: Tensor = field(repr=False)


@dataclass(frozen=True)
class Stepped:
    """A step that was sampled or replayed.

    after : x' [B, G, ...]
    mean : of x' [B, G or 1, ...]
    std : of each element; 0 for a step without noise, which has no density
    """

    after: Tensor = field(repr=False)
    mean: Tensor = field(repr=False)
    std: float

    @property
    def log_density(self) -> Tensor:
        """Of x' [B, G], summed over elements, in nats.

        Raises
        ------
        ValueError
            The step has no noise.
        """
        return log_density(self.after, self.mean, self.std)


def from_velocity(state: Tensor, velocity: Tensor, t: float) -> Estimate:
    """Estimate of a rectified flow whose network gives dx/dt = noise - clean."""
    return Estimate(state - t * velocity, state + (1 - t) * velocity)


def from_output(state: Tensor, output: Tensor, t: float, prediction: Prediction) -> Estimate:
    """Estimate of a variance-preserving diffusion network.

    Parameters
    ----------
    state : in rectified-flow coordinates
    output : of the network, float32, for `to_vp(state, t)`
    prediction : what the network predicts, as diffusers' schedulers call it

    Raises
    ------
    UsageError
        Noise prediction at (nearly) pure noise, where it says nothing of the map.
    """
    alpha, sigma = vp_coefficients(t)
    seen = to_vp(state, t)
    if prediction == "v_prediction":
        return Estimate(alpha * seen - sigma * output, sigma * seen + alpha * output)
    if prediction == "sample":
        return Estimate(output, (seen - alpha * output) / sigma)
    if t >= _PURE_NOISE:
        raise UsageError(f"a network that predicts noise can't start at time {t:.4f}, pure noise",
                         fix="a scheduler whose last alpha is above zero")  # fmt: skip
    return Estimate((seen - sigma * output) / alpha, output)


def coefficients(kernel: Kernel, t: float, t_next: float) -> tuple[float, float, float]:
    """(weight of clean, weight of noise, std) of a step from t down to t_next.

    Raises
    ------
    ValueError
        Not 0 <= t_next < t <= 1.
    """
    if not 0 <= t_next < t <= 1:
        raise ValueError(f"a step goes down in time within [0, 1], not from {t} to {t_next}")
    dt = t - t_next
    if kernel.name == "flow-sde":
        # singular at t = 1; there the published code takes the next time in the denominator
        variance_rate = kernel.noise_level**2 * t / (1 - t if 1 - t > _NEAR_ONE * dt else 1 - t_next)
        # reverse SDE of the same marginals: dx = (v + g^2 noise / (2 t)) dt + g dW, dt < 0
        return 1 - t_next, t_next - variance_rate * dt / (2 * t), math.sqrt(variance_rate * dt)
    quotient = t_next * (1 - t) / (t * (1 - t_next))
    std = t_next * kernel.noise_level * math.sqrt(1 - quotient**2)
    return 1 - t_next, math.sqrt(max(t_next**2 - std**2, 0.0)), std


def transition(kernel: Kernel, estimate: Estimate, t: float, t_next: float) -> tuple[Tensor, float]:
    """Mean, shaped as the estimate, and standard deviation of a step."""
    of_clean, of_noise, std = coefficients(kernel, t, t_next)
    return of_clean * estimate.clean + of_noise * estimate.noise, std


def step(
    kernel: Kernel, estimate: Estimate, t: float, t_next: float, *, noise: Tensor | None = None,
    after: Tensor | None = None, last: bool = False,
) -> Stepped:  # fmt: skip
    """One step: sampled from standard normal `noise`, or replayed to `after`.

    Parameters
    ----------
    last : the step is deterministic whatever the kernel, has no density and takes neither noise nor after

    Raises
    ------
    ValueError
        Both or neither of noise and after; one of them with `last`.
    """
    if last:
        if noise is not None or after is not None:
            raise ValueError("the last step is deterministic: it takes neither noise nor a next state")
        mean, std = transition(ODE, estimate, t, t_next)
        return Stepped(mean, mean, std)
    if (noise is None) == (after is None):
        raise ValueError("a step needs either noise, to sample, or the next state, to replay")
    mean, std = transition(kernel, estimate, t, t_next)
    if after is None:
        assert noise is not None
        after = mean + std * noise
    return Stepped(after, mean, std)


def log_density(after: Tensor, mean: Tensor, std: float | Tensor) -> Tensor:
    """Log-density [B, G] of samples [B, G, ...] under N(mean, std^2), summed over elements, in nats.

    The samples carry no gradient; the mean does.

    Raises
    ------
    ValueError
        A standard deviation that is not above 0.
    """
    scale = torch.as_tensor(std, dtype=after.dtype)
    if not bool((scale > 0).all()):
        raise ValueError("a step without noise has no density")
    scale = scale.to(after.device)
    each = -0.5 * ((after.detach() - mean) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
    return each.flatten(2).sum(2)


def vp_coefficients(t: float) -> tuple[float, float]:
    """(alpha, sigma) of variance-preserving diffusion at a rectified-flow time; alpha^2 + sigma^2 = 1."""
    length = math.hypot(1 - t, t)
    return (1 - t) / length, t / length


def rf_time(alpha_bar: float) -> float:
    """Rectified-flow time of a cumulative alpha in [0, 1]: sigma / (alpha + sigma)."""
    alpha, sigma = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    return sigma / (alpha + sigma)


def to_vp(state: Tensor, t: float) -> Tensor:
    """A rectified-flow state as variance-preserving diffusion has it."""
    return state / math.hypot(1 - t, t)


def to_rf(state: Tensor, t: float) -> Tensor:
    """A variance-preserving state in rectified-flow coordinates."""
    return state * math.hypot(1 - t, t)
