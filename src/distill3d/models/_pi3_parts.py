"""The decoders and the camera head behind the common tokens of Pi3 and Pi3X."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from distill3d.geometry.poses import pose_from_rt, project_to_rotation
from distill3d.nn.block import Block
from distill3d.nn.croco_vit import DecoderBlock
from distill3d.nn.rope import Rotary


class BranchDecoder(nn.Module):
    """A head's own look at the tokens of each view: a projection, blocks, a projection."""

    def __init__(self, in_dim: int, dim: int, out_dim: int, *, depth: int, num_heads: int):
        """Set up a decoder of this width between tokens of `in_dim` and of `out_dim`."""
        super().__init__()
        self.projects = nn.Linear(in_dim, dim)
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(depth))
        self.linear_out = nn.Linear(dim, out_dim)

    def forward(self, tokens: Float[Tensor, "maps tokens in_dim"], rotary: Rotary) -> Float[Tensor, "maps tokens dim"]:
        """The tokens for the head, registers included."""
        tokens = self.projects(tokens)
        for block in self.blocks:
            tokens = block(tokens, rotary)
        out: Tensor = self.linear_out(tokens)
        return out


class MetricDecoder(nn.Module):
    """One token that reads all tokens of a scene to tell its size."""

    def __init__(self, in_dim: int, dim: int, *, depth: int, num_heads: int):
        """Set up a decoder of this width for tokens of `in_dim`."""
        super().__init__()
        self.projects_x = nn.Linear(in_dim, dim)
        self.projects_y = nn.Linear(in_dim, dim)
        self.blocks = nn.ModuleList(DecoderBlock(dim, num_heads, self_attention=False) for _ in range(depth))
        self.linear_out = nn.Linear(dim, dim)

    def forward(
        self,
        token: Float[Tensor, "batch one in_dim"],
        memory: Float[Tensor, "batch tokens in_dim"],
        rotary: Rotary,
        memory_rotary: Rotary,
    ) -> Float[Tensor, "batch one dim"]:
        """What the token has read."""
        token, memory = self.projects_x(token), self.projects_y(memory)
        for block in self.blocks:
            token = block(token, memory, rotary, memory_rotary)
        out: Tensor = self.linear_out(token)
        return out


class ResidualMlp(nn.Module):
    """x + three linear layers, each with a ReLU."""

    def __init__(self, dim: int):
        super().__init__()
        self.res_conv1 = nn.Linear(dim, dim)
        self.res_conv2 = nn.Linear(dim, dim)
        self.res_conv3 = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Refine each token on its own."""
        return x + F.relu(self.res_conv3(F.relu(self.res_conv2(F.relu(self.res_conv1(x))))))


class CameraHead(nn.Module):
    """From the patches of a view to where its camera stands."""

    def __init__(self, dim: int):
        super().__init__()
        self.res_conv = nn.ModuleList(ResidualMlp(dim) for _ in range(2))
        self.more_mlps = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.fc_t = nn.Linear(dim, 3)
        self.fc_rot = nn.Linear(dim, 9)

    def forward(self, patches: Float[Tensor, "maps patches dim"]) -> Float[Tensor, "maps 4 4"]:
        """`world_from_camera` of every view."""
        for unit in self.res_conv:
            patches = unit(patches)
        seen = self.more_mlps(patches.mean(dim=1))
        return pose_from_rt(rotation_from_nine(self.fc_rot(seen)), self.fc_t(seen))


def rotation_from_nine(raw: Float[Tensor, "*batch 9"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation nearest to nine numbers read as three rows of length 1."""
    return project_to_rotation(F.normalize(raw.reshape(*raw.shape[:-1], 3, 3), dim=-1), double=False)
