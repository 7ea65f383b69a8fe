"""Which mics of a recording a model takes, and whether a recording has them; knows no network."""

from typing import NamedTuple


def check_mics(name: str, mics: list[int] | None) -> None:
    """Mics are counted from 0, each named once; None is all of them.

    Raises:
        ValueError: anything else.
    """
    if mics is None:
        return
    good = (
        isinstance(mics, (list, tuple))
        and len(mics) > 0
        and len(set(mics)) == len(mics)
        and all(isinstance(mic, int) and not isinstance(mic, bool) and mic >= 0 for mic in mics)
    )
    if not good:
        raise ValueError(f"{name} must be different mics, counted from 0, at least one, found {mics}")


class MicArray(NamedTuple):
    """The array that a model was made for; mics are channels of its recordings, from 0."""

    input_mics: list[int] | None  # that the network gets; None: all
    loss_mics: list[int] | None  # that the loss sums over; None: all
    ref_mic: int  # that the network's output is for, without FCP to another one
    num_inputs: int | None  # how many mics the network takes; None: any number
    least_inputs: int = 1  # of these

    def check(self, name: str, num_mics: int, ref_channel: int, options: tuple[str, str]) -> None:
        """Refuse a recording before work on it begins.

        Args:
            name: of the recording.
            num_mics: that it has.
            ref_channel: mic that the output is to be at, from 0.
            options: what the user's command calls `ref_channel`, and a choice among the recording's mics.
        Raises:
            ValueError: it has too few mics, or too many; says what to do.
        """
        exactly = self.input_mics is None and self.num_inputs is not None
        needed = (
            self.num_inputs
            if exactly
            else max(self.least_inputs, 1 + max([self.ref_mic, *(self.input_mics or []), *(self.loss_mics or [])]))
        )
        ref_option, choice = options
        if num_mics < needed or (num_mics > needed and exactly):
            remedy = (
                "it was trained for another array"
                if num_mics < needed
                else "choose those of the array that it was trained for, in its order, e.g. "
                f"{choice} {','.join(map(str, range(needed)))}"
            )
            raise ValueError(
                f"{name}: has {num_mics} channel(s), the model needs {needed}{'' if exactly else ' or more'}; {remedy}"
            )
        if not 0 <= ref_channel < num_mics:
            raise ValueError(f"{name}: has {num_mics} channel(s), but {ref_option} is {ref_channel}, counted from 0")
