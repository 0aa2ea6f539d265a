"""The reference blocks of the ED authors' code: their sizes, and the last one folded into the plain network."""

import pytest
import torch
from shipped import shipped_and_examples

from edpipe.errors import NetworkError
from edpipe.models.macs import count_parameters
from edpipe.models.students.extra_norm import ExtraNorm
from edpipe.models.students.student import Student
from edpipe.models.zoo.build import build_network
from edpipe.params.load import parse_params
from edpipe.params.plans.curriculum import curriculum

torch.set_num_threads(1)


def resnet20():
    return build_network("resnet20", 100, 3, 0)


@pytest.mark.slow
def test_sizes_are_those_of_the_authors_code():
    for level, classes, size in ((1, 33, 49_457), (2, 66, 72_594)):
        assert count_parameters(Student(resnet20(), level, 3, classes, "authors", 32, 3, 0)) == size
    assert count_parameters(ExtraNorm(resnet20())) == 278_452


@pytest.mark.slow
def test_the_first_block_keeps_a_grid_of_windows_and_later_ones_pool_the_whole_map():
    first, second = (Student(resnet20(), level, 3, 5, "authors", 32, 3, 0).reference for level in (1, 2))
    assert (first.fc.in_features, second.fc.in_features) == (64 * 4 * 4, 64)
    small = Student(resnet20(), 1, 3, 5, "authors", 8, 3, 0)
    assert small.reference.fc.in_features == 64
    assert small(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.slow
def test_the_last_student_is_the_plain_network_and_says_the_same():
    trained = ExtraNorm(resnet20())
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 3, 32, 32, generator=generator)
    with torch.no_grad():
        trained.norm.weight.uniform_(0.5, 2, generator=generator)
        trained.norm.bias.normal_(generator=generator)
    trained.train()
    trained(images)  # moves the running statistics
    trained.eval()
    plain = resnet20()
    plain.load_state_dict(trained.weights())
    plain.eval()
    with torch.no_grad():
        expected = trained(images)
        torch.testing.assert_close(plain(images), expected, rtol=1e-4, atol=1e-4)
        plain.load_state_dict(trained.network.state_dict())
        assert (plain(images) - expected).abs().max() > 0.1  # the normalisation did something


@pytest.mark.slow
def test_gradients_reach_body_head_and_normalisation():
    trained = ExtraNorm(resnet20())
    trained(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in trained.parameters())


def test_another_head_is_refused():
    with pytest.raises(NetworkError, match=r"its head is .*the authors' last reference needs pooling and one linear"):
        ExtraNorm(build_network("torchvision:mobilenet_v2", 10, 3, 0))


def test_the_shipped_experiment_is_the_code_read_literally():
    plans = curriculum(parse_params(shipped_and_examples()), "cifar100_ed_paper")
    assert [plan.budget.epochs for plan in plans] == [150, 30, 60]
    assert [plan.window for plan in plans] == [(0.0, 0.625), (0.625, 0.75), (0.75, 1.0)]
    assert {(plan.temperature, plan.task_weight, plan.distill_weight, plan.subset_order) for plan in plans} == {
        (4.0, 0.3, 0.7, "sequential")
    }
    assert [len(plan.teachers) for plan in plans] == [1, 2, 3]
