"""The plants of the solder scenario: four that are always the same, and further ones drawn from the seed.

What federation can give differs on purpose:

- `berlin` has ample data of both kinds of defect: it gains little.
- `lyon` printed thick paste in a cool, dry hall, where joints stay open; lately it is warm, humid and the paste thin,
  and boards bridge, which it has hardly seen and others have.
- `gdansk` (two lines, no humidity sensor, little data) is lyon's mirror image: it knows bridges and now meets open
  joints.
- `porto` runs a paste of another chemistry: warmth, moisture and viscosity act with the opposite sign, so that what
  others learned is wrong there.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from headgate.plants.solder import SolderLine, SolderPlant
from headgate.plants.solder_messages import BoardTopic, Form, Reading, TagTopic, Verdicts
from headgate.plants.solder_process import NO_CLEAN, WATER_SOLUBLE, Joint, OperatingRange, Phase

__all__ = ["DEFAULT_PLANTS", "MAX_PLANTS", "MIN_PLANTS", "solder_plants"]

DEFAULT_PLANTS, MIN_PLANTS, MAX_PLANTS = 4, 2, 8


def solder_plants(seed: int, count: int = DEFAULT_PLANTS) -> tuple[SolderPlant, ...]:
    """The first `count` plants.

    Raises:
        ValueError: a count outside 2..8.
    """
    if not MIN_PLANTS <= count <= MAX_PLANTS:
        raise ValueError(f"{count} solder plants: choose {MIN_PLANTS} to {MAX_PLANTS}")
    fixed = (_berlin(seed), _lyon(seed), _gdansk(seed), _porto(seed))
    drawn = (_drawn(seed, number) for number in range(count - len(fixed)))
    return (*fixed, *drawn)[:count]


def _berlin(seed: int) -> SolderPlant:
    home = "acme/berlin/smt/{line}"
    operating = OperatingRange(184, 22, 25.5, 2.5, 45, (45, 95), (25, 65), (8, 18), 11.0)
    return SolderPlant(
        plant_id="berlin",
        title="Berlin",
        instance=home,
        lines=(SolderLine("line1", "BER1", (Phase(0.0, operating),)),),
        chemistry=NO_CLEAN,
        board_interval_s=150.0,
        history_boards=1200,
        tags=(
            TagTopic(f"{home}/printer/paste_viscosity", Form.UMH, (Reading("paste_viscosity", "Pa.s"),), 3),
            TagTopic(f"{home}/ambient/temperature", Form.UMH, (Reading("ambient_temperature", "degC"),), 4),
            TagTopic(f"{home}/ambient/humidity", Form.UMH, (Reading("ambient_humidity", "%"),), 4),
            TagTopic(
                f"{home}/printer/squeegee_pressure", Form.UMH, (Reading("squeegee_pressure", "N"),), 2, True, True
            ),
            TagTopic(f"{home}/printer/squeegee_speed", Form.UMH, (Reading("squeegee_speed", "mm/s"),), 2, True, True),
            TagTopic(f"{home}/printer/stencil_prints", Form.UMH, (Reading("stencil_prints", ""),)),
        ),
        inspection=BoardTopic(
            f"{home}/spi/board",
            (
                Reading("paste_volume", "%", "volume_pct"),
                Reading("paste_height", "um", "height_um"),
                Reading("paste_offset", "um", "offset_um"),
            ),
        ),
        verdicts=Verdicts(
            f"{home}/aoi/verdict",
            {Joint.OK: ("OK",), Joint.BRIDGE: ("BRIDGE",), Joint.OPEN: ("OPEN",)},
            (90.0, 240.0),
        ),
        seed=seed,
    )


def _lyon(seed: int) -> SolderPlant:
    home = "acme/lyon/atelier CMS/{line}"

    def tag(path: str, feature: str, unit: str, every_boards: int, *, setting: bool = False) -> TagTopic:
        reading = Reading(feature, unit)
        return TagTopic(
            f"{home}/{path}",
            Form.VQT,
            (reading,),
            every_boards,
            on_change=setting,
            retain=setting,
            timestamp_key="timestamp",
            iso8601=True,
        )

    cool_and_dry = OperatingRange(198, 8, 22.5, 0.8, 42, (52, 75), (35, 55), (8, 16))
    warm_and_humid = OperatingRange(175, 10, 27.5, 1.5, 50, (60, 90), (28, 55), (10, 18))
    return SolderPlant(
        plant_id="lyon",
        title="Lyon",
        instance=home,
        lines=(SolderLine("ligne 1", "LYO1", (Phase(0.0, cool_and_dry), Phase(0.72, warm_and_humid))),),
        chemistry=NO_CLEAN,
        board_interval_s=180.0,
        history_boards=760,
        tags=(
            tag("imprimante/viscosité pâte", "paste_viscosity", "cP", 3),
            tag("ambiance/température", "ambient_temperature", "degC", 4),
            tag("ambiance/humidité", "ambient_humidity", "%", 4),
            tag("imprimante/pression racle", "squeegee_pressure", "N", 2, setting=True),
            tag("imprimante/vitesse racle", "squeegee_speed", "mm/s", 2, setting=True),
            tag("imprimante/impressions depuis nettoyage", "stencil_prints", "", 1),
        ),
        inspection=BoardTopic(
            f"{home}/spi/carte",
            (
                Reading("paste_volume", "%", "volume"),
                Reading("paste_height", "mm", "hauteur"),
                Reading("paste_offset", "mm", "decalage"),
            ),
            serial_key="num_serie",
            timestamp_key="timestamp",
            iso8601=True,
        ),
        verdicts=Verdicts(
            f"{home}/aoi/résultat",
            {
                Joint.OK: ("BON",),
                Joint.BRIDGE: ("PONT", "PONT DE BRASURE"),
                Joint.OPEN: ("OUVERT", "NON SOUDÉ"),
            },
            (120.0, 400.0),
            verdict_key="resultat",
            serial_key="num_serie",
            timestamp_key="timestamp",
            iso8601=True,
        ),
        seed=seed,
    )


def _gdansk(seed: int) -> SolderPlant:
    home = "acme/gdansk/smt/{line}"
    warm = OperatingRange(174, 10, 26.5, 1.2, 49, (60, 95), (25, 55), (10, 20))
    less_warm = OperatingRange(180, 10, 26, 1.2, 48, (60, 95), (25, 55), (10, 20))
    dry = OperatingRange(206, 10, 24, 1.2, 39, (50, 80), (35, 65), (10, 20))
    return SolderPlant(
        plant_id="gdansk",
        title="Gdańsk",
        instance=home,
        lines=(
            SolderLine("line1", "GDA1", (Phase(0.0, warm), Phase(0.72, dry))),
            SolderLine("line2", "GDA2", (Phase(0.0, less_warm), Phase(0.72, dry))),
        ),
        chemistry=NO_CLEAN,
        board_interval_s=160.0,
        history_boards=800,
        tags=(
            TagTopic(
                f"{home}/printer/status",
                Form.FLAT,
                (
                    Reading("paste_viscosity", "cP", "viscosity_cp"),
                    Reading("ambient_temperature", "degF", "temperature_f"),
                    Reading("squeegee_pressure", "kgf", "pressure_kgf"),
                    Reading("squeegee_speed", "mm/s", "speed_mm_s"),
                    Reading("stencil_prints", "", "prints_since_cleaning"),
                ),
                timestamp_key="ts",
            ),
        ),
        inspection=BoardTopic(
            f"{home}/spi/board",
            (
                Reading("paste_volume", "%", "vol"),
                Reading("paste_height", "um", "height"),
                Reading("paste_offset", "um", "offset"),
            ),
            serial_key="sn",
            timestamp_key="ts",
        ),
        verdicts=Verdicts(
            f"{home}/aoi/result",
            {Joint.OK: ("PASS",), Joint.BRIDGE: ("SHORT", "BRIDGE"), Joint.OPEN: ("NO SOLDER", "OPEN")},
            (60.0, 180.0),
            verdict_key="result",
            serial_key="sn",
            timestamp_key="ts",
        ),
        seed=seed,
    )


def _porto(seed: int) -> SolderPlant:
    home = "acme/porto/smt/{line}"

    def tag(path: str, feature: str, unit: str, every_boards: int, *, setting: bool = False) -> TagTopic:
        return TagTopic(
            f"{home}/{path}",
            Form.VQT,
            (Reading(feature, unit),),
            every_boards,
            on_change=setting,
            retain=setting,
            value_key="v",
            quality_key="q",
            timestamp_key="t",
            good=192,
            bad=0,
        )

    operating = OperatingRange(178, 20, 25.5, 2.5, 46, (45, 95), (25, 65), (8, 18))
    return SolderPlant(
        plant_id="porto",
        title="Porto",
        instance=home,
        lines=(SolderLine("linha-a", "OPO1", (Phase(0.0, operating),)),),
        chemistry=WATER_SOLUBLE,
        board_interval_s=120.0,
        history_boards=1100,
        tags=(
            tag("impressora/viscosidade", "paste_viscosity", "Pa.s", 3),
            tag("ambiente/temperatura", "ambient_temperature", "degF", 4),
            tag("ambiente/humidade", "ambient_humidity", "%", 4),
            tag("impressora/pressao", "squeegee_pressure", "N", 2, setting=True),
            tag("impressora/velocidade", "squeegee_speed", "mm/s", 2, setting=True),
            tag("impressora/impressoes", "stencil_prints", "", 1),
        ),
        inspection=BoardTopic(
            f"{home}/spi/placa",
            (
                Reading("paste_volume", "%", "volume"),
                Reading("paste_height", "um", "altura"),
                Reading("paste_offset", "um", "desvio"),
            ),
            timestamp_key="t",
        ),
        verdicts=Verdicts(
            f"{home}/aoi/veredicto",
            {Joint.OK: ("OK",), Joint.BRIDGE: ("CURTO",), Joint.OPEN: ("ABERTO", "SEM SOLDA")},
            (40.0, 150.0),
            verdict_key="veredicto",
            timestamp_key="t",
        ),
        seed=seed,
    )


_FURTHER = (
    ("muenchen", "München", "MUC1"),
    ("brno", "Brno", "BRQ1"),
    ("umea", "Umeå", "UME1"),
    ("tampere", "Tampere", "TMP1"),
)


def _drawn(seed: int, number: int) -> SolderPlant:
    """A further plant: the common paste, at an operating range and in a house style of its own."""
    plant_id, title, prefix = _FURTHER[number]
    rng = Random(f"{seed}/{plant_id}/plant")
    style = rng.choice((_berlin, _gdansk))(seed)
    old_home, home = style.instance, f"acme/{title.lower()}/smt/{{line}}"
    operating = OperatingRange(
        viscosity_pas=rng.uniform(174.0, 196.0),
        viscosity_spread_pas=rng.uniform(15.0, 23.0),
        temperature_c=rng.uniform(24.0, 27.0),
        temperature_swing_c=rng.uniform(1.0, 3.0),
        humidity_pct=rng.uniform(40.0, 50.0),
        pressure_n=(rng.uniform(45.0, 58.0), rng.uniform(75.0, 95.0)),
        speed_mm_s=(rng.uniform(25.0, 35.0), rng.uniform(50.0, 65.0)),
        cleaning_every=(8, rng.randrange(12, 21)),
        misalignment_um=rng.uniform(9.0, 14.0),
    )
    return replace(
        style,
        plant_id=plant_id,
        title=title,
        instance=home,
        lines=(SolderLine("line1", prefix, (Phase(0.0, operating),)),),
        board_interval_s=rng.choice((120.0, 150.0, 180.0)),
        history_boards=rng.randrange(640, 900, 20),
        tags=tuple(replace(tag, topic=tag.topic.replace(old_home, home)) for tag in style.tags),
        inspection=replace(style.inspection, topic=style.inspection.topic.replace(old_home, home)),
        verdicts=replace(style.verdicts, topic=style.verdicts.topic.replace(old_home, home)),
    )
