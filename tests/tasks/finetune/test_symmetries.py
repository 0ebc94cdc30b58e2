import pytest
import torch

from a2mae.tasks.finetune.model import symmetries


@pytest.mark.parametrize(("height", "width", "count"), [(5, 5, 8), (3, 5, 4)])
def test_symmetries_differ_keep_the_shape_and_can_be_undone(height, width, count):
    image = torch.arange(2 * height * width).reshape(2, height, width)
    found = symmetries(height, width)
    assert torch.equal(found[0].move(image), image)
    moved = [symmetry.move(image) for symmetry in found]
    assert len({tuple(values.flatten().tolist()) for values in moved}) == count
    for symmetry, values in zip(found, moved, strict=True):
        assert values.shape == image.shape
        assert torch.equal(symmetry.undo(values), image)
