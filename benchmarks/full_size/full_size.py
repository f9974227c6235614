"""One GRPO step of a Stable-Diffusion-2-size pipeline with random weights: what it costs, phase by phase.

Weights don't change what a step costs, so nothing is downloaded. The policy, objective and loop of portions are those
of training. Small sizes have the same structure and run on a CPU in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from reasonx_eval.errors import unknown
from reasonx_eval.io.seeding import stream_seed
from reasonx_eval.models.adapters.marigold_maps import DEPTH, Description
from reasonx_eval.models.loading.runtime import Runtime, quiet
from reasonx_ft.grpo.batch import Batch, Judged
from reasonx_ft.grpo.kernels import Kernel
from reasonx_ft.policies.adapters import add_adapters
from reasonx_ft.policies.base import Compute
from reasonx_ft.policies.chain import Chain
from reasonx_ft.policies.diffusion import Diffusion
from reasonx_ft.policies.marigold import LatentMaps
from reasonx_ft.tuning.config import Objective
from reasonx_ft.tuning.monitor import Timer, process_peak
from reasonx_ft.tuning.objective import StepLoss, compare, draw, reward
from reasonx_ft.tuning.parallel import Processes

Size = Literal["sd2", "small"]


@dataclass(frozen=True)
class Shape:
    """Widths of the networks, and the photo's side in pixels."""

    unet: tuple[int, ...]
    heads: tuple[int, ...]
    text: int
    autoencoder: tuple[int, ...]
    layers: int
    pixels: int


SHAPES: Final[Mapping[Size, Shape]] = {
    "sd2": Shape((320, 640, 1280, 1280), (5, 10, 20, 20), 1024, (128, 256, 512, 512), 2, 512),
    "small": Shape((32, 64, 64, 64), (2, 4, 4, 4), 64, (32, 32, 32, 32), 1, 64),
}
#: phases that are passes of the network and nothing else; the backward pass holds that of the loss too
NETWORK: Final = ("rollout: network", "base: network", "replay: network", "backward")
AUTOENCODER: Final = ("encode photo", "decode")


@dataclass(frozen=True)
class Setting:
    """What is measured.

    size : sd2 is the published one; small is for a CPU
    images, group, pairs, steps : of one optimiser step
    window : scored steps, None is all but the last
    lora : rank of adapters, None trains the whole network
    kl : whether the frozen base is asked too
    pixels : side of the photo; default: the size's own
    """

    size: Size = "sd2"
    images: int = 1
    group: int = 8
    pairs: int = 40
    steps: int = 15
    window: int | None = None
    lora: int | None = 32
    kl: bool = True
    pixels: int | None = None
    micro: int | None = None
    gradient_checkpointing: bool = True
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"


@dataclass(frozen=True)
class Phase:
    """A part of a step: seconds that belong to no part within it; highest memory of the device, None on a CPU.

    On a CPU they are seconds of the process (all its threads), which other programs don't change.
    """

    name: str
    seconds: float
    peak_gib: float | None


@dataclass(frozen=True)
class Measured:
    """One step.

    outside : share of the time that is neither forward nor backward pass of the network, in [0, 1]
    peak_gib : of the device, or of the process on a CPU
    trained, parameters : of the network, and how many of them are trained
    """

    setting: Setting
    device: str
    threads: int
    phases: tuple[Phase, ...] = field(repr=False)
    seconds: float = 0.0
    outside: float = 0.0
    peak_gib: float = 0.0
    parameters: int = 0
    trained: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Measured:
        """What `to_dict` gave."""
        return cls(**{**value, "setting": Setting(**value["setting"]),
                      "phases": tuple(Phase(**p) for p in value["phases"])})  # fmt: skip


class Stopwatch(Timer):
    """The trainer's clock, but a phase inside another stops the outer one's, and memory is watched too."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._cuda = device if device.type == "cuda" else None
        self._open: list[str] = []
        self._since = 0.0
        self.peaks: dict[str, int] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def enter(self, name: str) -> None:
        self._settle()
        self._open.append(name)

    def leave(self) -> None:
        self._settle()
        self._open.pop()

    def _settle(self) -> None:
        """Give the time since the last change to the innermost open phase."""
        now = self._now() if self._cuda else time.process_time()
        if self._open:
            name = self._open[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
            if self._cuda:
                peak = torch.cuda.max_memory_allocated(self._cuda)
                self.peaks[name] = max(self.peaks.get(name, 0), peak)
                torch.cuda.reset_peak_memory_stats(self._cuda)
        self._since = now


def build_policy(setting: Setting) -> Diffusion:
    """A depth pipeline of random weights, on its device, as a policy.

    Raises
    ------
    UsageError
        An unknown size, or a schedule that makes no policy.
    """
    if setting.size not in SHAPES:
        raise unknown("size", setting.size, SHAPES)
    runtime = Runtime(setting.device, setting.dtype)
    with quiet("diffusers", "transformers"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(0, "full size") % 2**63)
        pipe = _pipeline(SHAPES[setting.size], runtime.torch_device)
    description = Description(DEPTH, {"depth": ("depth_affine",)}, {"depth_affine": 0}, steps=4)
    latents = LatentMaps(pipe, description, dtype=runtime.torch_dtype)
    network = pipe.unet
    if setting.lora is not None:
        add_adapters(network, rank=setting.lora, alpha=2 * setting.lora)
    if setting.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    chain = Chain(latents.schedule(setting.steps), Kernel("flow-sde", 0.7), setting.window, variance_preserving=True)
    return Diffusion(network, latents, latents.schedule(4), chain=chain, base=f"random {setting.size}", resolution=0,
                     compute=Compute(runtime.torch_dtype, setting.micro))  # fmt: skip


def _pipeline(shape: Shape, device: torch.device) -> Any:
    import diffusers

    library: Any = diffusers
    scheduler = library.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                      clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction",
                                      timestep_spacing="trailing", rescale_betas_zero_snr=True)  # fmt: skip
    pipe = library.MarigoldDepthPipeline(
        unet=make_unet(shape).to(device),
        vae=make_autoencoder(shape).to(device), scheduler=scheduler, text_encoder=None, tokenizer=None,
        prediction_type="depth", scale_invariant=True, shift_invariant=True,
    )  # fmt: skip
    pipe.empty_text_embedding = torch.randn(1, 2, shape.text, device=device)
    return pipe


def make_unet(shape: Shape) -> Any:
    """The network of a shape: latents of photo and map in, of the map out; on the current default device."""
    import diffusers

    library: Any = diffusers
    return library.UNet2DConditionModel(
        in_channels=8, out_channels=4, block_out_channels=shape.unet, attention_head_dim=shape.heads,
        cross_attention_dim=shape.text, layers_per_block=shape.layers, use_linear_projection=True,
    )  # fmt: skip


def make_autoencoder(shape: Shape) -> Any:
    """The autoencoder of a shape, on the current default device."""
    import diffusers

    library: Any = diffusers
    return library.AutoencoderKL(
        block_out_channels=shape.autoencoder, layers_per_block=shape.layers, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * len(shape.autoencoder),
        up_block_types=("UpDecoderBlock2D",) * len(shape.autoencoder),
    )  # fmt: skip


def make_batch(setting: Setting, device: torch.device) -> Batch:
    """Random photos with random answers."""
    generator = torch.Generator().manual_seed(stream_seed(0, "full size", "batch") % 2**63)
    pixels = setting.pixels or SHAPES[setting.size].pixels
    photos = torch.rand(setting.images, 3, pixels, pixels, generator=generator).to(device)
    rows, cols = (torch.randint(0, pixels, (setting.images, setting.pairs, 2), generator=generator).to(device)
                  for _ in range(2))  # fmt: skip
    answers = torch.rand(setting.images, setting.pairs, generator=generator).to(device)
    judged = Judged("depth", rows, cols, answers, torch.ones_like(answers))
    return Batch(photos, {"depth": judged}, tuple(range(setting.images)))


def measure(setting: Setting, *, warm: bool = True) -> Measured:
    """Cost of one optimiser step of `setting`.

    Parameters
    ----------
    warm : take one step before the one that is measured, so that libraries have chosen their algorithms
    """
    policy = build_policy(setting)
    device = policy.latents.device
    weights = [w for w in policy.network.parameters() if w.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=1e-5)
    for _ in range(2 if warm else 1):
        watch = Stopwatch(device)
        handles = _instrument(policy, watch)
        with watch.phase("other"):
            _one_step(policy, make_batch(setting, device), setting, weights, optimiser, watch)
        for undo in handles:
            undo()
    total = sum(watch.seconds.values())
    inside = sum(watch.seconds.get(name, 0.0) for name in NETWORK)
    phases = tuple(Phase(name, seconds, watch.peaks[name] / 2**30 if name in watch.peaks else None)
                   for name, seconds in watch.seconds.items())  # fmt: skip
    return Measured(
        setting=setting, device=_device_name(device), threads=torch.get_num_threads(), phases=phases, seconds=total,
        outside=1 - inside / total, peak_gib=_peak(watch, device),
        parameters=sum(w.numel() for w in policy.network.parameters()), trained=sum(w.numel() for w in weights),
    )  # fmt: skip


def _one_step(
    policy: Diffusion, batch: Batch, setting: Setting, weights: Sequence[nn.Parameter],
    optimiser: torch.optim.Optimizer, watch: Stopwatch,
) -> None:  # fmt: skip
    objective = Objective(grpo=1.0, ranking=0.0, expected=0.0, rehearsal=0.0, num_generations=setting.group,
                          scale_rewards="floored", credit="image", kl=0.04 if setting.kl else 0.0)  # fmt: skip
    processes = Processes(cpu=True)
    with watch.phase("rollout"):
        rollouts = draw(policy, batch, None, objective, 0, microbatch=setting.micro)
    with watch.phase("reward"):
        advantages = compare(reward(batch, rollouts, objective), objective, processes)
    loss = StepLoss(policy, batch, None, objective, rollouts, advantages, processes)
    with watch.phase("loss"):
        for microbatch in loss.microbatches(setting.micro):
            part = loss.of(microbatch)
            with watch.phase("backward"):
                part.total.backward()  # type: ignore[no-untyped-call]  # torch's own signature
    with watch.phase("optimiser"):
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def _instrument(policy: Diffusion, watch: Stopwatch) -> list[Any]:
    """Put the clock around the network and the autoencoder; what takes it away again."""
    networks = {id(policy.network): "rollout: network"}
    if policy.frozen is not None:
        networks[id(policy.frozen)] = "base: network"
    undo = []
    for network in filter(None, (policy.network, policy.frozen)):
        name = networks[id(network)]

        def begin(module: nn.Module, _: Any, name: str = name) -> None:
            watch.enter("replay: network" if torch.is_grad_enabled() else _of_base(policy, name))

        def end(module: nn.Module, _: Any, __: Any) -> None:
            watch.leave()

        undo += [network.register_forward_pre_hook(begin).remove, network.register_forward_hook(end).remove]
    undo += [_timed(policy.latents, "encode", "encode photo", watch), _timed(policy.latents, "decode", "decode", watch)]
    return undo


def _of_base(policy: Diffusion, name: str) -> str:
    """Whose pass it is: with adapters, base and tuned network are one module."""
    return "base: network" if policy.is_base else name


def _timed(owner: Any, method: str, name: str, watch: Stopwatch) -> Any:
    original = getattr(owner, method)

    def timed(*arguments: Any) -> Tensor:
        with watch.phase(name):
            found: Tensor = original(*arguments)
            return found

    setattr(owner, method, timed)
    return lambda: delattr(owner, method)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _peak(watch: Stopwatch, device: torch.device) -> float:
    if device.type == "cuda":
        return max(watch.peaks.values()) / 2**30
    return process_peak() / 2**30
