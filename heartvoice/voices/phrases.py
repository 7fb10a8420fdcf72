"""What a speaker reads aloud: the consent, by locale, and six random words."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import cached_property

from heartvoice.errors import InvalidRequestError

N_WORDS = 6


@dataclass(frozen=True)
class Language:
    """Text and words of one locale."""

    statement: str
    """With the places {speaker}, {service}, {purpose} and {words}."""
    listed: str

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Words to choose from: different in sound, and written in one way only."""
        return tuple(self.listed.split())


LANGUAGES = {
    "en": Language(
        "I am {speaker}. I agree that {service} makes singing with a copy of my voice, for this purpose: {purpose}. "
        "I can withdraw this at any time. My words are: {words}.",
        """
        apple arrow autumn avenue balcony balloon bamboo banana bandage barrel basket battery bicycle blanket blossom
        bottle bracket bridge bubble bucket butter button cabin cactus camera candle canyon carpet carrot castle
        cattle ceiling chapel cherry chicken chimney circus clover coconut coffee copper corner cotton cousin cradle
        crystal curtain cushion dancer desert diamond dinner doctor dolphin donkey dragon dream eagle elbow elephant
        emerald engine evening fabric factory falcon family farmer father feather fiddle finger forest fortune
        fountain freedom frozen furniture galaxy garage garden garlic giant ginger giraffe glacier golden granite
        guitar hammer harbor harvest hazel helmet history holiday honey horizon hospital hotel hunter iceberg insect
        island ivory jacket jasmine jelly journey jungle kangaroo kettle kitchen kitten ladder lantern laundry leather
        lemon leopard letter library limestone lion lizard lobster machine magnet mango maple marble market meadow
        medal melody memory mirror monkey morning mountain museum mushroom mustard napkin necklace needle notebook
        november nutmeg ocean october olive onion orange orchard oven oyster paddle painter palace pancake panda
        paper parade parrot pebble pelican pencil penguin pepper piano pillow pilot pirate planet plastic pocket
        poetry potato powder prairie present pumpkin puppet puzzle pyramid quarter rabbit raccoon radio rainbow
        ribbon river robin rocket saddle sailor salad salmon sandwich satellite scarlet scissors season shadow
        shoulder silver sister soldier spider spinach spiral squirrel stadium station stomach student sugar summer
        sunset table teacher temple theater thunder ticket tiger tomato tornado tractor treasure triangle trumpet
        tulip tunnel turkey turtle umbrella uncle valley vanilla velvet village vinegar violin volcano wagon walnut
        water whisper whistle wildlife window winter wizard wonder yellow yesterday zebra
        """,
    ),
    "de": Language(
        "Ich bin {speaker}. Ich bin einverstanden, dass {service} mit einer Kopie meiner Stimme singt, zu diesem "
        "Zweck: {purpose}. Ich kann das jederzeit widerrufen. Meine Wörter sind: {words}.",
        """
        Abend Adler Ampel Anker Apfel Bahnhof Banane Becher Birne Blume Brille Brücke Butter Dampfer Donner Eimer
        Elefant Fabrik Feder Fenster Feuer Flasche Frühling Gabel Garten Gitarre Hafen Hammer Herbst Himmel Honig
        Insel Jacke Kaffee Kamel Karotte Kartoffel Kirche Klavier Koffer Lampe Leiter Löffel Mantel Marmor Melone
        Messer Morgen Nebel Orange Papier Pfeffer Regen Salat Sattel Schatten Schlüssel Sommer Spiegel Teller Tomate
        Wasser Winter Zitrone
        """,
    ),
    "es": Language(
        "Soy {speaker}. Acepto que {service} cante con una copia de mi voz, con este fin: {purpose}. Puedo retirarlo "
        "en cualquier momento. Mis palabras son: {words}.",
        """
        abuelo agua amarillo amigo arena azúcar barco bosque botella caballo café camino camisa campana canción
        carretera ciudad cocina cuchara domingo elefante escuela espejo estrella familia fuego guitarra hermano
        hierro invierno isla jardín jirafa lámpara leche libro lluvia madera mañana manzana martes mercado montaña
        naranja nieve noche oveja papel pelota piedra plátano playa puente puerta ratón reloj sábado silla sombra
        tiempo tomate trabajo ventana verano
        """,
    ),
    "fr": Language(
        "Je suis {speaker}. J'accepte que {service} chante avec une copie de ma voix, dans ce but : {purpose}. Je peux "
        "retirer cet accord à tout moment. Mes mots sont : {words}.",
        """
        abeille aéroport agneau ananas argent automne baguette banane bateau bouteille cabane café canard carotte
        château cheval chocolat citron colline cuisine dimanche domaine éléphant escalier étoile famille fenêtre
        fontaine forêt fourmi fromage girafe guitare hiver horloge jardin journal lapin légume lumière lundi magasin
        maison mardi montagne mouton musique nuage oiseau orange papillon pomme poisson rivière salade samedi savon
        semaine soleil table tambour tomate tortue violon
        """,
    ),
}  # fmt: skip
"""By ISO 639-1 code."""


def choose_words(locale: str) -> tuple[str, ...]:
    """Draw six different words of a locale at random.

    Raises:
        InvalidRequestError: there are no words for the locale.
    """
    if locale not in LANGUAGES:
        raise InvalidRequestError(f"locale: expected one of {', '.join(LANGUAGES)}, got {locale!r}")
    return tuple(secrets.SystemRandom().sample(LANGUAGES[locale].words, N_WORDS))


def statement(locale: str, *, speaker: str, service: str, purpose: str, words: tuple[str, ...]) -> str:
    """Return the text to be read aloud."""
    return LANGUAGES[locale].statement.format(
        speaker=speaker, service=service, purpose=purpose.rstrip("."), words=", ".join(words)
    )
