"""The training tower is the released one: transformers computes the same from the same weights."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.oracle


def test_features_are_those_of_transformers():
    from transformers.models.qwen3_5_moe.configuration_qwen3_5_moe import (  # pyright: ignore[reportMissingImports]
        Qwen3_5MoeVisionConfig,
    )
    from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import (  # pyright: ignore[reportMissingImports]
        Qwen3_5MoeVisionModel,
    )

    from scripts.miniature.torch_vision import Tower, VisionShape

    shape = VisionShape()
    torch.manual_seed(0)
    config = Qwen3_5MoeVisionConfig(
        depth=shape.depth, hidden_size=shape.hidden, num_heads=shape.heads, intermediate_size=shape.intermediate,
        patch_size=shape.patch, temporal_patch_size=shape.temporal, spatial_merge_size=shape.merge,
        out_hidden_size=shape.out, num_position_embeddings=shape.side**2,
    )  # fmt: skip
    theirs, ours = Qwen3_5MoeVisionModel(config).eval(), Tower(shape)
    for parameter in ours.parameters():  # away from zeros and ones
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    theirs.load_state_dict(ours.state_dict())
    grids = [(4, 8), (6, 6), (6, 6), (14, 10)]
    pictures = [torch.randn(rows * columns, shape.pixels) for rows, columns in grids]
    with torch.no_grad():
        wanted = theirs(torch.cat(pictures), torch.tensor([(1, *grid) for grid in grids])).pooler_output
        got = ours([
            (pictures[0][None], grids[0]), (torch.stack(pictures[1:3]), grids[1]), (pictures[3][None], grids[3]),
        ])  # fmt: skip
    assert (got - wanted).norm() / wanted.norm() < 1e-5
