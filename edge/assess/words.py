"""What plants call things: words of names in several languages, units in names, codes of verdicts. Pure."""

from __future__ import annotations

import re
import unicodedata

_SAME = (
    "temperature temp temperatur temperatura tmp",
    "humidity hum rh feuchte luftfeuchte humidite humidade humedad",
    "pressure press druck pression pressao presion",
    "speed spd velocity geschwindigkeit vitesse velocidade velocidad",
    "force kraft fuerza forca",
    "viscosity visc viscositaet viscosite viscosidade viscosidad",
    "volume vol volumen",
    "height hoehe hauteur altura",
    "width breite largeur largura ancho",
    "length laenge longueur comprimento",
    "offset versatz decalage desvio shift",
    "current strom courant corriente corrente cur",
    "voltage spannung tension volt",
    "power leistung puissance potencia",
    "flow durchfluss debit caudal vazao",
    "vibration vib schwingung vibracion vibracao",
    "torque drehmoment couple par",
    "level fuellstand niveau nivel",
    "prints drucke impressions impressoes impresiones",
    "ambient umgebung ambiance ambiente room hall",
    "squeegee rakel racle rodo",
    "paste pate pasta",
    "stencil schablone",
    "weight gewicht poids peso",
    "frequency freq frequenz frequence frequencia",
    "energy energie energia",
    "position pos lage",
)
_CANON = {word: words.split()[0] for words in _SAME for word in words.split()}
_STEM = 5
"""Words that share so many first letters are one."""
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])")

_UNIT_WORDS = {
    ("pct",): "%", ("percent",): "%", ("prozent",): "%", ("degc",): "degC", ("celsius",): "degC", ("c",): "degC",
    ("degf",): "degF", ("fahrenheit",): "degF", ("f",): "degF", ("k",): "K", ("kelvin",): "K",
    ("um",): "um", ("micron",): "um", ("mm",): "mm", ("cm",): "cm", ("inch",): "inch", ("m",): "m",
    ("in",): "inch", ("bar",): "bar", ("mbar",): "mbar", ("psi",): "psi", ("pa",): "Pa", ("kpa",): "kPa",
    ("mpa",): "MPa",
    ("n",): "N", ("kn",): "kN", ("kgf",): "kgf", ("lbf",): "lbf", ("nm",): "N*m", ("cp",): "cP", ("pas",): "Pa.s",
    ("pa", "s"): "Pa.s", ("mm", "s"): "mm/s", ("m", "s"): "m/s", ("m", "min"): "m/min", ("in", "s"): "inch/s",
    ("rpm",): "rpm", ("hz",): "Hz", ("khz",): "kHz", ("a",): "A", ("ma",): "mA", ("v",): "V", ("mv",): "mV",
    ("w",): "W", ("kw",): "kW", ("kwh",): "kWh", ("s",): "s", ("ms",): "ms", ("sec",): "s", ("min",): "min",
    ("h",): "h", ("g",): "g", ("kg",): "kg", ("l", "min"): "l/min", ("m", "h"): "m**3/h",
}  # fmt: skip
_SIGNS = {"°c": "degC", "°f": "degF", "µm": "um", "μm": "um", "pa·s": "Pa.s", "pa s": "Pa.s", "mm/s": "mm/s", "": ""}

_GOOD_WORDS = "ok pass passed good bon gut io bom aprovado conforme accept accepted valid bueno normal healthy none"
_BAD_WORDS = (
    "ng nok nio fail failed failure bad defect defective reject rejected bridge short open insufficient pont ouvert"
    " curto aberto tombstone missing scrap defekt fehler ausschuss schlecht mauvais ko anomaly abnormal fault faulty"
    " nosolder semsolda nonsoude pontdebrasure misaligned error"
)
_GOOD, _BAD = frozenset(_GOOD_WORDS.split()), frozenset(_BAD_WORDS.split())


def words_of(name: str) -> tuple[str, ...]:
    """A name cut into its words: lower case, without accents, common synonyms in English."""
    flat = unicodedata.normalize("NFKD", _CAMEL.sub(" ", name)).encode("ascii", "ignore").decode().lower()
    return tuple(_CANON.get(word, word) for word in re.split(r"[^a-z0-9]+", flat) if word)


def same_word(one: str, other: str) -> bool:
    """Whether two words mean the same."""
    if one == other:
        return True
    shortest = min(len(one), len(other))
    return shortest >= _STEM and one[:_STEM] == other[:_STEM]


def unit_in(name: str) -> str | None:
    """The unit that a name ends with (`volume_pct`, `temperature_f`, `speed_mm_s`); None without one."""
    words = words_of(name)
    for length in (2, 1):
        if len(words) > length and words[-length:] in _UNIT_WORDS:
            return _UNIT_WORDS[words[-length:]]
    return None


def unit_written(text: str) -> str:
    """A unit as people write it beside a value, as pint reads it."""
    lowered = text.strip().lower()
    return _SIGNS.get(lowered, _UNIT_WORDS.get((lowered,), text.strip()))


def verdict_of(code: str) -> bool | None:
    """Whether a code says that something is good; None where nothing tells."""
    flat = "".join(words_of(code))
    if flat in _GOOD:
        return True
    return False if flat in _BAD or any(word in _BAD for word in words_of(code)) else None
