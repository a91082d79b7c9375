"""A solder-paste printing line as cause and effect: from paste, air and machine settings to a good or bad joint.

One board passes through four steps, each a function of the one before it:

1. *Conditions.* Room temperature and humidity wander around the hall's mean with the time of day. A jar of paste has a
   viscosity of its own (150-250 Pa.s at 25 degC is usual for printing pastes); it thins by about 2.5 % per degC and
   thickens while it lies open, faster in dry air. Squeegee pressure (30-110 N) and speed (20-90 mm/s) stay constant
   over a job. Paste residue builds up under the stencil until the next cleaning; a stencil wears over thousands of
   prints.
2. *Print.* Shear-thinned paste fills the apertures if pressure is high enough for viscosity times speed: their
   ratio, not each of them, decides. Too little leaves apertures unfilled; too much scoops the paste out of them (low)
   and presses it out under the stencil (wide). Thick paste clogs a dirty stencil, thin paste smears on it.
3. *Inspection* (SPI) measures volume (% of the aperture), height (um) and offset (um) with noise.
4. *Reflow.* Much paste bridges where it also lies off its pad or slumps; little or low paste leaves joints open, the
   more so once it has dried. What makes paste slump or dry is a matter of its chemistry: no-clean paste slumps where
   it is warm, humid and thin, and dries where air is dry and paste thick. The water-soluble paste modelled here gels
   with warmth and takes up water, so that conditions act on it with the opposite sign.

The coefficients are plausible, not fitted to a real line; the water-soluble paste is an invention that stands for any
plant whose relations differ from everyone else's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from random import Random

__all__ = [
    "NO_CLEAN",
    "WATER_SOLUBLE",
    "Board",
    "Chemistry",
    "Conditions",
    "Deposit",
    "Joint",
    "LineProcess",
    "OperatingRange",
    "Phase",
    "joint_log_odds",
]

_FOIL_UM = 120.0
"""Thickness of the stencil, thus the height of a perfect deposit."""


class Joint(Enum):
    """What became of the worst joint of a board."""

    OK = "ok"
    BRIDGE = "bridge"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class OperatingRange:
    """Where a line works: means and spreads of its conditions, and the limits of its settings.

    Attributes:
        viscosity_pas: mean over batches at 25 degC, Pa.s; viscosity_spread_pas: standard deviation between batches.
        temperature_c, humidity_pct: means of the hall; temperature_swing_c: half the swing over a day.
        pressure_n, speed_mm_s: lowest and highest setting of a job.
        cleaning_every: prints between two cleanings of the stencil, lowest and highest.
        misalignment_um: constant error of the print's position.
    """

    viscosity_pas: float
    viscosity_spread_pas: float
    temperature_c: float
    temperature_swing_c: float
    humidity_pct: float
    pressure_n: tuple[float, float]
    speed_mm_s: tuple[float, float]
    cleaning_every: tuple[int, int]
    misalignment_um: float = 8.0


@dataclass(frozen=True, slots=True)
class Phase:
    """An operating range that holds from a fraction of the history on (0 = from its first board)."""

    from_fraction: float
    operating: OperatingRange


@dataclass(frozen=True, slots=True)
class Deposit:
    """Paste on a board as it really is: volume in % of the aperture, height and offset in um."""

    volume_pct: float
    height_um: float
    offset_um: float


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a board was printed under: paste in Pa.s and hours since opening, air in degC and %, settings in N, mm/s."""

    viscosity_pas: float
    paste_age_h: float
    temperature_c: float
    humidity_pct: float
    pressure_n: float
    speed_mm_s: float
    prints_since_cleaning: int


@dataclass(frozen=True, slots=True)
class Board:
    """One printed board as its line's instruments saw it (noise included), and its joint as it became.

    Attributes:
        readings: value of each signal by feature name, in the contract's units.
        settings_changed: this board begins a job with other squeegee settings.
    """

    number: int
    readings: dict[str, float]
    settings_changed: bool
    joint: Joint


@dataclass(frozen=True, slots=True)
class Chemistry:
    """How a paste answers to its conditions at reflow.

    Attributes:
        base: log-odds of a bridge, and of an open joint, on a perfect deposit.
        geometry: weight of the deposit's shape alone (volume with offset, volume with height).
        interplay: weight of volume where the paste slumps or has dried.
        conditions: weight of slump and dryness alone.
        sense: 1 where warmth, moisture and thinness make paste slump (and their lack dries it); negative where they
            do the opposite. The magnitude says how sharply.
        thick_pas, dry_pct: viscosity and humidity at which dryness is neutral.
    """

    base: float
    geometry: float
    interplay: float
    conditions: float
    sense: float
    thick_pas: float
    dry_pct: float


NO_CLEAN = Chemistry(base=-7.4, geometry=1.0, interplay=1.5, conditions=0.6, sense=1.0, thick_pas=205.0, dry_pct=40.0)
WATER_SOLUBLE = Chemistry(
    base=-7.4, geometry=0.8, interplay=2.0, conditions=0.8, sense=-2.0, thick_pas=180.0, dry_pct=44.0
)


def joint_log_odds(chemistry: Chemistry, conditions: Conditions, deposit: Deposit) -> tuple[float, float]:
    """Log-odds of (bridge, open joint). Products, not sums: much paste is harmless on its pad and while it stands."""
    much = _softplus((deposit.volume_pct - 102.5) / 4.0)
    aside = _softplus((deposit.offset_um - 16.0) / 5.0)
    little = _softplus((96.5 - deposit.volume_pct) / 4.0)
    low = _softplus((112.0 - deposit.height_um) / 4.0)
    slump = chemistry.sense * (
        (conditions.temperature_c - 25.0) / 2.5
        + (180.0 - conditions.viscosity_pas) / 15.0
        + (conditions.humidity_pct - 48.0) / 9.0
    )
    dried = chemistry.sense * (
        (conditions.viscosity_pas - chemistry.thick_pas) / 15.0 + (chemistry.dry_pct - conditions.humidity_pct) / 8.0
    )
    bridge = (
        chemistry.geometry * much * aside
        + chemistry.interplay * much * _sigmoid(slump)
        + chemistry.conditions * _softplus(slump)
    )
    open_ = (
        chemistry.geometry * little * low
        + chemistry.interplay * little * _sigmoid(dried)
        + chemistry.conditions * _softplus(dried)
    )
    return chemistry.base + bridge, chemistry.base + open_


class LineProcess:
    """State of one line between two boards: its paste, its air, its stencil and its settings.

    Time in here is process time: `board_interval_s` per board, whatever the speed of publishing.
    """

    def __init__(
        self, rng: Random, phases: tuple[Phase, ...], chemistry: Chemistry, *, board_interval_s: float
    ) -> None:
        self._rng = rng
        self._phases = phases
        self._chemistry = chemistry
        self._hours_per_board = board_interval_s / 3600.0
        self._start_hour = rng.uniform(0.0, 24.0)
        operating = phases[0].operating
        self._mean_c, self._mean_pct = operating.temperature_c, operating.humidity_pct
        self._wander_c, self._wander_pct = 0.0, 0.0
        self._boards = 0
        self._batch_left = 0
        self._job_left = 0
        self._cleaning_left = 0
        self._batch_pas = operating.viscosity_pas
        self._age_h = 0.0
        self._pressure_n, self._speed_mm_s = 0.0, 0.0
        self._prints_since_cleaning = 0
        self._stencil_prints = rng.randrange(2000, 12000)

    def print_board(self, progress: float) -> Board:
        """Print the next board; `progress` is its place in the history (0 = first, 1 and more = after its end)."""
        operating = [phase.operating for phase in self._phases if phase.from_fraction <= max(progress, 0.0)][-1]
        changed = self._advance(operating)
        conditions = self._conditions(operating)
        deposit = self._deposit(conditions, operating)
        joint = self._reflow(conditions, deposit)
        board = Board(self._boards, self._measure(conditions, deposit), changed, joint)
        self._boards += 1
        return board

    def _advance(self, operating: OperatingRange) -> bool:
        """Use up jar, job and clean stencil by one board; returns whether the squeegee settings changed."""
        rng = self._rng
        if self._batch_left == 0:
            self._batch_left = rng.randrange(12, 28)
            self._batch_pas = rng.gauss(operating.viscosity_pas, operating.viscosity_spread_pas)
            self._age_h = rng.uniform(0.0, 0.5)
        changed = self._job_left == 0
        if changed:
            self._job_left = rng.randrange(6, 16)
            self._pressure_n = rng.uniform(*operating.pressure_n)
            self._speed_mm_s = rng.uniform(*operating.speed_mm_s)
        if self._cleaning_left == 0:
            self._cleaning_left = rng.randint(*operating.cleaning_every)
            self._prints_since_cleaning = 0
        if self._stencil_prints > 15000:
            self._stencil_prints = 0
        self._batch_left -= 1
        self._job_left -= 1
        self._cleaning_left -= 1
        self._age_h += self._hours_per_board
        self._prints_since_cleaning += 1
        self._stencil_prints += 1
        # A hall follows its air conditioning over some dozen boards, and wanders around it.
        self._mean_c += (operating.temperature_c - self._mean_c) / 12.0
        self._mean_pct += (operating.humidity_pct - self._mean_pct) / 12.0
        self._wander_c = 0.9 * self._wander_c + rng.gauss(0.0, 0.4)
        self._wander_pct = 0.9 * self._wander_pct + rng.gauss(0.0, 1.8)
        return changed

    def _conditions(self, operating: OperatingRange) -> Conditions:
        hour = self._start_hour + self._boards * self._hours_per_board
        daily_c = operating.temperature_swing_c * math.sin(2.0 * math.pi * (hour - 9.0) / 24.0)
        temperature_c = self._mean_c + daily_c + self._wander_c
        # The same water in warmer air: about two points of relative humidity less per degree.
        humidity_pct = min(max(self._mean_pct - 2.0 * daily_c + self._wander_pct, 12.0), 88.0)
        drying = 1.0 + 0.07 * self._age_h * min(max(1.8 - humidity_pct / 50.0, 0.2), 1.6)
        viscosity_pas = self._batch_pas * math.exp(-0.025 * (temperature_c - 25.0)) * drying
        return Conditions(
            viscosity_pas,
            self._age_h,
            temperature_c,
            humidity_pct,
            self._pressure_n,
            self._speed_mm_s,
            self._prints_since_cleaning,
        )

    def _deposit(self, conditions: Conditions, operating: OperatingRange) -> Deposit:
        rng = self._rng
        # Pressure over viscous resistance; the exponent below 1 on speed is shear thinning. 0 = as designed.
        fill = (
            math.log(conditions.pressure_n / 65.0)
            - 0.9 * math.log(conditions.viscosity_pas / 190.0)
            - 0.6 * math.log(conditions.speed_mm_s / 45.0)
        )
        dirt = conditions.prints_since_cleaning / 20.0
        clogged = dirt * _sigmoid((conditions.viscosity_pas - 205.0) / 14.0)
        smeared = dirt * _sigmoid((172.0 - conditions.viscosity_pas) / 12.0)
        worn = self._stencil_prints / 15000.0
        transfer = 16.0 * math.tanh(1.4 * fill) - 14.0 * clogged + 11.0 * smeared
        volume = 100.0 + transfer + rng.gauss(0.0, 5.0 + worn)
        scooped = max(fill - 0.25, 0.0)
        height = _FOIL_UM * (0.98 + 0.08 * math.tanh(fill) - 0.30 * scooped - 0.07 * clogged) + rng.gauss(0.0, 4.0)
        sideways = operating.misalignment_um + 0.25 * max(conditions.speed_mm_s - 45.0, 0.0) + 6.0 * smeared
        spread = 9.0 + 3.0 * worn
        offset = math.hypot(rng.gauss(sideways, spread), rng.gauss(0.0, spread))
        return Deposit(max(volume, 5.0), max(height, 5.0), offset)

    def _reflow(self, conditions: Conditions, deposit: Deposit) -> Joint:
        bridge, open_ = joint_log_odds(self._chemistry, conditions, deposit)
        draw = self._rng.random()
        if draw < _sigmoid(bridge):
            return Joint.BRIDGE
        return Joint.OPEN if draw > 1.0 - _sigmoid(open_) else Joint.OK

    def _measure(self, conditions: Conditions, deposit: Deposit) -> dict[str, float]:
        """What the instruments say: the truth with their noise."""
        gauss = self._rng.gauss
        return {
            "paste_viscosity": gauss(conditions.viscosity_pas, 2.5),
            "ambient_temperature": gauss(conditions.temperature_c, 0.15),
            "ambient_humidity": gauss(conditions.humidity_pct, 1.0),
            "squeegee_pressure": gauss(conditions.pressure_n, 0.8),
            "squeegee_speed": gauss(conditions.speed_mm_s, 0.5),
            "stencil_prints": float(conditions.prints_since_cleaning),
            "paste_volume": max(gauss(deposit.volume_pct, 2.0), 0.0),
            "paste_height": max(gauss(deposit.height_um, 1.5), 0.0),
            "paste_offset": abs(gauss(deposit.offset_um, 2.0)),
        }


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else 1.0 - 1.0 / (1.0 + math.exp(x))


def _softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)
