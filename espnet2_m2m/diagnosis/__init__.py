"""Why a training does not separate: the quantities of an utterance, and a set in words."""
