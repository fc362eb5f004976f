"""The XMP packet of a picture: building it, and reading the recipe from an untrusted one.

The packet marks the picture as made by a model, in two standard forms: IPTC's DigitalSourceType
(https://cv.iptc.org/newscodes/digitalsourcetype/) and the AIGC label of GB 45438-2025 (China, in force
2025-09-01, appendix E: one JSON text in the namespace of TC260). The recipe has a namespace of its own. Knows
neither the file that contains the packet nor the fields of a recipe.
"""

from __future__ import annotations

from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import escape

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from starrynight.text import plain_json

NAMESPACE = "urn:starry-night:recipe/1.0/"
AIGC_NAMESPACE = "http://www.tc260.org.cn/ns/AIGC/1.0/"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
MAX_PACKET = 4 << 20  # bytes; a recipe takes a few KB, but photo editors store edit histories here

_PREFIXES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "TC260": AIGC_NAMESPACE,
    "starry": NAMESPACE,
}


def aigc_label(producer: str, produce_id: str) -> str:
    """GB 45438-2025's implicit label. Label "1": made by AI. A distributor fills in the Propagator fields."""
    label = {"Label": "1", "ContentProducer": producer, "ProduceID": produce_id, "ReservedCode1": ""}
    return plain_json(label | {"ContentPropagator": "", "PropagateID": "", "ReservedCode2": ""})


def description(prompt: str) -> str:
    """The prompt as ``dc:description``, which photo tools show under the picture."""
    return f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{escape(prompt)}</rdf:li></rdf:Alt></dc:description>'


def element(name: str, text: str) -> str:
    """One property; ``text`` is escaped."""
    return f"<{name}>{escape(text)}</{name}>"


def packet(*properties: str) -> bytes:
    """An XMP packet (UTF-8) of ``properties`` made by ``element`` and ``description``."""
    body = "".join(f"\n   {line}" for line in properties)
    used = "".join(
        f' xmlns:{name}="{uri}"' for name, uri in _PREFIXES.items() if name == "rdf" or f"<{name}:" in body
    )
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Starry Night">\n <rdf:RDF{used}>\n'
        f'  <rdf:Description rdf:about="">{body}\n  </rdf:Description>\n </rdf:RDF>\n</x:xmpmeta>\n'
        '<?xpacket end="r"?>'
    ).encode()


def read(data: bytes) -> dict[str, str]:
    """The properties of a packet in the known namespaces, by prefixed name ("starry:Recipe").

    {} if the packet is longer than ``MAX_PACKET``, not XML, or has a document type, as XML bombs do.
    """
    if len(data) > MAX_PACKET:
        return {}
    try:
        root = fromstring(data.strip(b"\0 \r\n\t"), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError, RecursionError):
        return {}
    found: dict[str, str] = {}
    for description_node in root.iter(f"{{{_PREFIXES['rdf']}}}Description"):
        # Photo tools rewrite elements as attributes and the reverse.
        elements = {child.tag: "".join(child.itertext()).strip() for child in description_node}
        for key, value in [*description_node.attrib.items(), *elements.items()]:
            for prefix, uri in _PREFIXES.items():
                if isinstance(key, str) and key.startswith(f"{{{uri}}}"):
                    found[f"{prefix}:{key.removeprefix(f'{{{uri}}}')}"] = value or ""
    return found
