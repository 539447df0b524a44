"""What the demo reads from Events."""

from billet_lab.demo import first_calls


def test_two_boots_of_the_same_time_are_two():
    events = [
        {"message": "agent called 12 s after kernel start", "count": 2},
        {"message": "agent called 9 s after kernel start"},
        {"message": "registered", "count": 7},
        {"message": "agent called 14 s after kernel start", "count": None},
    ]
    assert first_calls(events) == [12.0, 12.0, 9.0, 14.0]
