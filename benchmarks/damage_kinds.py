"""All kinds of damage: importing the others fills the list."""

import damage_audio  # noqa: F401
import damage_models  # noqa: F401
import damage_others  # noqa: F401
import damage_tables  # noqa: F401
from damage_case import KINDS as KINDS
