import pytest

from pipeline.cli.words import classes, overrides, seconds
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("20m", 1200), ("1h", 3600), ("1h30m", 5400), ("3m30s", 210), ("2h5s", 7205), ("1h1m1s", 3661)],
)
def test_a_time_is_the_sum_of_its_parts(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0s", "0h0m", "m", "1.5h", "-5m", "30m1h", "20 m", "20min", "1d"])
def test_what_is_no_time_is_refused_with_examples(text):
    with pytest.raises(ConfigError, match="90s, 20m or 1h30m"):
        seconds(text)


def test_a_plain_number_is_refused_and_both_readings_are_offered():
    with pytest.raises(ConfigError) as raised:
        seconds("20")
    assert "write 20m for minutes or 20s for seconds" in str(raised.value)


def test_overrides_keep_their_text_and_order():
    assert overrides(["a=1", "b#c=x=y", "d::e="]) == ("a=1", "b#c=x=y", "d::e=")
    assert overrides(None) == ()


@pytest.mark.parametrize("word", ["max_epochs", "=5", "my_scans"])
def test_a_word_that_is_no_override_is_refused(word):
    with pytest.raises(ConfigError, match=word):
        overrides(["a=1", word])


@pytest.mark.parametrize("text", ["1=a,b", "1=a,1=b", "1=a,2=A", "a,A", "0=background", "a,,b", "=a", "1="])
def test_what_names_no_classes_is_refused(text):
    with pytest.raises(ConfigError, match="--classes"):
        classes(text)
