"""The stream of training prompts."""

from progrpo.grpo.prompt_stream import PromptStream


def test_every_prompt_comes_once_in_a_pass_whatever_the_batch():
    stream = PromptStream(count=10, batch=4, seed=0)
    prompts = [k for i in range(5) for k in stream.iteration(i)]
    assert sorted(prompts[:10]) == sorted(prompts[10:]) == list(range(10))
    assert prompts[:10] != prompts[10:]


def test_an_iteration_does_not_depend_on_the_ones_before():
    asked_in_order = PromptStream(7, 3, seed=1)
    for i in range(6):
        last = asked_in_order.iteration(i)
    assert PromptStream(7, 3, seed=1).iteration(5) == last
    assert PromptStream(7, 3, seed=2).iteration(5) != last


def test_consecutive_iterations_differ():
    stream = PromptStream(count=100, batch=8, seed=0)
    assert stream.iteration(0) != stream.iteration(1)
