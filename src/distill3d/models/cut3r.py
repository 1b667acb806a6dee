"""CUT3R: views one after the other, each read against a state that it then updates."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distill3d.errors import ConfigError
from distill3d.geometry.poses import pose_from_rt, rotation_from_quaternion
from distill3d.models import ModelSpec
from distill3d.models._cut3r_config import VARIANTS, CUT3RConfig
from distill3d.models._cut3r_inputs import encode_present, ray_map, state_positions
from distill3d.models._cut3r_parts import CUT3RHeads, PoseMemory, RawOutput
from distill3d.nn.activations import exp_points, one_plus_exp
from distill3d.nn.croco_vit import CrocoEncoder, DecoderBlock
from distill3d.nn.dpt import DPT_ALIASES, DPT_RENAMES
from distill3d.nn.images import ImageNormalisation, patch_grid
from distill3d.nn.initialise import TOKEN_STD, initialise_
from distill3d.nn.rope import Rotary, grid_positions, rotary_table
from distill3d.types import Prediction, collate_views

__all__ = ["CUT3R", "SPEC", "CUT3RConfig", "CUT3ROutput", "CUT3RState", "ray_map", "state_positions"]

SEED = 0
"""Draws the fresh weights where no generator is given."""
COLOUR_MARGIN = 1e-6
"""Colours keep this distance from 0 and 1, as in the reference."""


@dataclass(frozen=True, kw_only=True)
class CUT3RState:
    """All that the network remembers of the views so far: keep it to go on later, once or several times."""

    tokens: Float[Tensor, "batch slots dim"]
    memory: Float[Tensor, "batch entries width"]
    """Pairs of looks and poses."""
    started: bool
    """Whether any view has been seen: the first one takes a learned pose token, the others read theirs from memory."""


@dataclass(frozen=True, kw_only=True)
class CUT3ROutput:
    """The maps, poses and colours of some views."""

    prediction: Prediction
    """Both pointmaps with confidences above 1, and `world_from_camera`; the world is the camera of the first view."""
    colours: Float[Tensor, "batch views 3 height width"]
    """RGB in [0, 1] as the network sees the view: what a ray map asks for, the photo itself otherwise."""


class _Look(NamedTuple):
    """One view after the decoders: the tokens that the heads read, and what the view would leave behind."""

    levels: list[Tensor]
    pose: Tensor
    tokens: Tensor
    memory: Tensor

    @property
    def after(self) -> CUT3RState:
        """The state as the view would leave it."""
        return CUT3RState(tokens=self.tokens, memory=self.memory, started=True)


class _Rotaries(NamedTuple):
    """The angles of one step; image and state decoder differ in the width of their heads."""

    patches: Rotary
    image: tuple[Rotary, Rotary]
    """Of the image stream (its pose token stands at (-1, -1)) and of the state it reads."""
    state: tuple[Rotary, Rotary]
    """Of the state stream and of the image it reads."""


class CUT3R(nn.Module):
    """CroCo encoder, two decoders that exchange image and state, a pose memory, and heads for both frames."""

    def __init__(self, config: CUT3RConfig, *, generator: torch.Generator | None = None):
        """Make the network with fresh weights, drawn from `generator` (default: a fixed seed)."""
        super().__init__()
        self.config = config
        encoder_dim, dim = config.encoder_dim, config.decoder_dim
        self.normalise = ImageNormalisation("half")
        self.encoder = CrocoEncoder(
            dim=encoder_dim,
            patch_size=config.patch_size,
            depth=config.encoder_depth,
            num_heads=config.encoder_heads,
            mlp_ratio=config.mlp_ratio,
            rotary_rounding=torch.float16 if config.half_precision_rotary else None,
        )
        self.ray_encoder = CrocoEncoder(
            dim=encoder_dim,
            patch_size=config.patch_size,
            depth=config.ray_depth,
            num_heads=config.ray_heads,
            mlp_ratio=config.mlp_ratio,
            in_channels=6,
        )
        self.masked_image_token = nn.Parameter(torch.zeros(1, encoder_dim))
        self.masked_ray_map_token = nn.Parameter(torch.zeros(1, encoder_dim))
        self.state_tokens = nn.Parameter(torch.zeros(config.state_size, encoder_dim))
        self.pose_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pose_memory = PoseMemory(config)
        self.image_embed, self.state_embed = nn.Linear(encoder_dim, dim), nn.Linear(encoder_dim, dim)
        self.image_blocks = _blocks(config, config.decoder_heads)
        self.state_blocks = _blocks(config, config.state_heads)
        self.image_norm, self.state_norm = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.heads = CUT3RHeads(config)
        self.encoder.gradient_checkpointing = self.ray_encoder.gradient_checkpointing = config.gradient_checkpointing
        generator = generator or torch.Generator().manual_seed(SEED)
        initialise_(self, "normal_002", generator)
        for token in (self.masked_image_token, self.masked_ray_map_token, self.state_tokens, self.pose_token,
                      self.pose_memory.mem, self.pose_memory.masked_token):  # fmt: skip
            nn.init.normal_(token, std=TOKEN_STD, generator=generator)

    def forward(
        self, images: Float[Tensor, "batch views 3 height width"], *, head_chunk: int | None = None
    ) -> Prediction:
        """Maps and poses of all views, each seen in the light of those before it; see `run`."""
        return self.run(images, head_chunk=head_chunk)[0].prediction

    def start(self, batch: int) -> CUT3RState:
        """The state before the first view."""
        tokens = self.state_embed(self.state_tokens).expand(batch, -1, -1)
        return CUT3RState(tokens=tokens, memory=self.pose_memory.mem.expand(batch, -1, -1), started=False)

    def run(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        state: CUT3RState | None = None,
        *,
        has_image: Bool[Tensor, "batch views"] | None = None,
        ray_maps: Float[Tensor, "batch views height width 6"] | None = None,
        has_ray_map: Bool[Tensor, "batch views"] | None = None,
        update: Bool[Tensor, "batch views"] | None = None,
        reset: Bool[Tensor, "batch views"] | None = None,
        head_chunk: int | None = None,
    ) -> tuple[CUT3ROutput, CUT3RState]:
        """A sequence of views of one size, and the state after the last.

        With ray maps this differs from `step`: where a map or an image is absent, a learned token stands for it.

        Args:
            images: RGB in [0, 1]; both sides are multiples of the patch size.
            state: where an earlier sequence ended; None to start.
            has_image: False where `images` holds nothing to read (it may be NaN); None for images everywhere.
            ray_maps: see `ray_map`.
            has_ray_map: False where `ray_maps` holds nothing to read; None for ray maps everywhere, if given.
            update: views that may change the state (only those with an image do); None for all.
            reset: views after which the state starts anew; None for none. The next view still reads its first guess
                of a pose from the (fresh) memory.
            head_chunk: views encoded and passed through the heads at a time, to bound the memory; None for all.
                It changes no value.

        Raises:
            ConfigError: sides that are no multiples, or no view.
        """
        batch, views = images.shape[:2]
        grid = patch_grid(images, self.config.patch_size)
        if views == 0:
            raise ConfigError("There is no view in this sequence; give at least one.")
        state = state or self.start(batch)
        rotaries = self._rotaries(grid, images.device)
        # None stands for "all": then nothing waits for the device to tell which.
        write = has_image if update is None else update if has_image is None else has_image & update
        if ray_maps is not None and has_ray_map is not None and not bool(has_ray_map.any()):
            ray_maps = None
        outputs = []
        chunk = views if head_chunk is None else max(1, head_chunk)
        for start in range(0, views, chunk):
            part = slice(start, start + chunk)
            features = encode_present(
                self.encoder, self.normalise(images[:, part]), _part(has_image, part), self.masked_image_token, grid
            )
            if ray_maps is not None:
                maps = ray_maps[:, part].permute(0, 1, 4, 2, 3)
                features = features + encode_present(
                    self.ray_encoder, maps, _part(has_ray_map, part), self.masked_ray_map_token, grid
                )
            looks = []
            for index in range(features.shape[1]):
                view = start + index
                look = self._look(features[:, index], state, rotaries)
                state = look.after if write is None else _choose(write[:, view], look.after, state)
                if reset is not None:
                    state = _choose(reset[:, view], self.start(batch), state)
                looks.append(look)
            outputs.append(self._output(looks, grid, rotaries))
        prediction = collate_views([output.prediction for output in outputs])
        colours = torch.cat([output.colours for output in outputs], dim=1)
        return CUT3ROutput(prediction=prediction, colours=colours), state

    def step(
        self,
        image: Float[Tensor, "batch 3 height width"] | None,
        state: CUT3RState | None = None,
        *,
        ray_map: Float[Tensor, "batch height width 6"] | None = None,
        update: bool = True,
    ) -> tuple[CUT3ROutput, CUT3RState]:
        """One view (an axis of length 1 in the output), and the state after it; views may differ in size.

        Without an image the ray map is a question about a camera, and the state stays as it is.

        Raises:
            ConfigError: sides that are no multiples, or neither image nor ray map.
        """
        if image is not None:
            grid = patch_grid(image, self.config.patch_size)
            feature = self.encoder(self.normalise(image)).tokens
            if ray_map is not None:
                feature = feature + self.ray_encoder(ray_map.permute(0, 3, 1, 2)).tokens
        elif ray_map is not None:
            rays = ray_map.permute(0, 3, 1, 2)
            grid = patch_grid(rays[:, :3], self.config.patch_size)
            feature = self.ray_encoder(rays).tokens
        else:
            raise ConfigError("A step needs an image, a ray map, or both.")
        state = state or self.start(len(feature))
        rotaries = self._rotaries(grid, feature.device)
        look = self._look(feature, state, rotaries)
        return self._output([look], grid, rotaries), look.after if update and image is not None else state

    def query(self, ray_map: Float[Tensor, "batch height width 6"], state: CUT3RState) -> CUT3ROutput:
        """What the network expects to see along given rays; the state stays as it is."""
        return self.step(None, state, ray_map=ray_map)[0]

    def stream(
        self, images: Iterable[Float[Tensor, "batch 3 _ _"]], state: CUT3RState | None = None
    ) -> Iterator[tuple[CUT3ROutput, CUT3RState]]:
        """Views as they come, with the state after each; memory does not grow with their number."""
        for image in images:
            output, state = self.step(image, state)
            yield output, state

    def _rotaries(self, grid: tuple[int, int], device: torch.device) -> _Rotaries:
        config = self.config
        patches = grid_positions(*grid, device)
        image = torch.cat([patches.new_full((1, 1, 2), -1), patches], dim=1)
        slots = state_positions(config.state_size, config.state_positions, device)
        image_dim, state_dim = (config.decoder_dim // heads for heads in (config.decoder_heads, config.state_heads))
        return _Rotaries(
            patches=rotary_table(patches, image_dim),
            image=(rotary_table(image, image_dim), rotary_table(slots, image_dim)),
            state=(rotary_table(slots, state_dim), rotary_table(image, state_dim)),
        )

    def _look(
        self, feature: Float[Tensor, "batch patches encoder_dim"], state: CUT3RState, rotaries: _Rotaries
    ) -> _Look:
        """One view against the state."""
        look = self.pose_memory.proj_q(feature.mean(dim=1, keepdim=True))
        if state.started:
            pose = self.pose_memory.read(look, state.memory)
        else:
            pose = self.pose_token.expand(len(feature), -1, -1)
        image, slots = torch.cat([pose, self.image_embed(feature)], dim=1), state.tokens
        levels = [feature]
        depth = self.config.decoder_depth
        for index, (image_block, state_block) in enumerate(zip(self.image_blocks, self.state_blocks, strict=True)):
            # Both read what the other was before this block.
            image, slots = (
                self._call(image_block, image, slots, rotaries.image),
                self._call(state_block, slots, image, rotaries.state),
            )
            if index + 1 in (depth // 2, depth * 3 // 4):
                levels.append(image[:, 1:])
        image, slots = self.image_norm(image), self.state_norm(slots)
        memory = self.pose_memory.write(look, image[:, :1], state.memory)
        return _Look([*levels, image[:, 1:]], image[:, 0], slots, memory)

    def _call(self, block: nn.Module, tokens: Tensor, memory: Tensor, rotary: tuple[Rotary, Rotary]) -> Tensor:
        if self.config.gradient_checkpointing and torch.is_grad_enabled():
            found: Tensor = checkpoint(block, tokens, memory, *rotary, use_reentrant=False)
        else:
            found = block(tokens, memory, *rotary)
        return found

    def _output(self, looks: list[_Look], grid: tuple[int, int], rotaries: _Rotaries) -> CUT3ROutput:
        # Heads, points and poses in float32 whatever the autocast.
        with torch.autocast(looks[0].pose.device.type, enabled=False):
            columns = zip(*(look.levels for look in looks), strict=True)
            levels = [torch.stack(parts, dim=1).flatten(0, 1).float() for parts in columns]
            pose = torch.stack([look.pose for look in looks], dim=1).flatten(0, 1).float()
            raw = self.heads(levels, pose, rotaries.patches, grid)
            # Back to (batch, views, ...).
            split = (-1, len(looks))
            raw = RawOutput(*(part.view(*split, *part.shape[1:]) for part in raw))
            camera, world = raw.camera.movedim(2, -1), raw.world.movedim(2, -1)
            if self.config.head == "linear":
                # In front of the camera always; jumps where z passes 0, as the reference does.
                camera = torch.cat([camera[..., :3] * camera[..., 2:3].sign(), camera[..., 3:]], dim=-1)
            prediction = Prediction(
                pointmap_world=exp_points(world[..., :3]),
                pointmap_camera=exp_points(camera[..., :3]),
                confidence_world=one_plus_exp(world[..., 3]),
                confidence_camera=one_plus_exp(camera[..., 3]),
                world_from_camera=pose_from_rt(
                    rotation_from_quaternion(raw.pose[..., 3:]), exp_points(raw.pose[..., :3])
                ),
            )
            colours = raw.colour.sigmoid() * (1 - 2 * COLOUR_MARGIN) + COLOUR_MARGIN
        return CUT3ROutput(prediction=prediction, colours=colours)


def _part(flags: Bool[Tensor, "batch views"] | None, views: slice) -> Bool[Tensor, "batch part"] | None:
    return None if flags is None else flags[:, views]


def _choose(where: Bool[Tensor, " batch"], first: CUT3RState, second: CUT3RState) -> CUT3RState:
    """By rows, after a view."""
    rows = where[:, None, None]
    return CUT3RState(
        tokens=torch.where(rows, first.tokens, second.tokens),
        memory=torch.where(rows, first.memory, second.memory),
        started=True,
    )


def _blocks(config: CUT3RConfig, num_heads: int) -> nn.ModuleList:
    return nn.ModuleList(
        DecoderBlock(config.decoder_dim, num_heads, mlp_ratio=config.mlp_ratio) for _ in range(config.decoder_depth)
    )


SPEC = ModelSpec(
    build=CUT3R,
    config=CUT3RConfig,
    views="stream",
    variants=VARIANTS,
    renames=(
        *DPT_RENAMES,
        ("patch_embed_ray_map.", "ray_encoder.patch_embed."),
        ("enc_blocks_ray_map.", "ray_encoder.blocks."),
        ("enc_norm_ray_map.", "ray_encoder.norm."),
        ("patch_embed.", "encoder.patch_embed."),
        ("enc_blocks.", "encoder.blocks."),
        ("enc_norm.", "encoder.norm."),
        ("masked_img_token", "masked_image_token"),
        ("register_tokens.weight", "state_tokens"),
        ("decoder_embed.", "image_embed."),
        ("decoder_embed_state.", "state_embed."),
        ("dec_blocks.", "image_blocks."),
        ("dec_blocks_state.", "state_blocks."),
        ("dec_norm.", "image_norm."),
        ("dec_norm_state.", "state_norm."),
        ("pose_retriever.", "pose_memory."),
        ("downstream_head.pose_head.mlp.", "heads.pose."),
        ("downstream_head.final_transform.", "heads.to_world."),
        ("downstream_head.dpt_self.", "heads.camera."),
        ("downstream_head.dpt_cross.", "heads.world."),
        ("downstream_head.dpt_rgb.", "heads.colour."),
        # After the lines above, so that the way back meets these first.
        ("downstream_head.proj.", "heads.camera.proj."),
        ("downstream_head.cross_proj.", "heads.world.proj."),
        ("downstream_head.rgb_proj.", "heads.colour.proj."),
    ),
    aliases=DPT_ALIASES,
    prefixes=("module.",),
    lora_targets=r"^encoder\.blocks\.\d+\.attn\.qkv",
    patch_size=16,
    reference_licence="CC BY-NC-SA 4.0",
    licences={
        "cut3r_512_dpt_4_64.pth": "CC BY-NC-SA 4.0 (non-commercial)",
        "cut3r_224_linear_4.pth": "CC BY-NC-SA 4.0 (non-commercial)",
    },
)
