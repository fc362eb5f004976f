"""The XMP packet of our pictures: building it, and reading our recipe back from a packet anybody may have written.

It says, in the words photo tools and the law know, that the picture was painted by a model: IPTC's DigitalSourceType
(https://cv.iptc.org/newscodes/digitalsourcetype/) and the AIGC label of GB 45438-2025 (China, in force 2025-09-01,
appendix E: one JSON text in the namespace of TC260). Our recipe travels in a namespace of our own.
Does NOT know in which file the packet lies, nor what a recipe holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import escape

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

NAMESPACE = "urn:starry-night:recipe/1.0/"
AIGC_NAMESPACE = "http://www.tc260.org.cn/ns/AIGC/1.0/"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
MAX_PACKET = 4 << 20  # bytes; ours are the recipe and little else; photo editors keep histories there

_PREFIXES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "TC260": AIGC_NAMESPACE,
    "starry": NAMESPACE,
}


def aigc_label(producer: str, produce_id: str) -> str:
    """GB 45438-2025's implicit label. Label "1": made by AI. Whoever passes the picture on fills the Propagator's."""
    label = {
        "Label": "1",
        "ContentProducer": producer,
        "ProduceID": produce_id,
        "ReservedCode1": "",
        "ContentPropagator": "",
        "PropagateID": "",
        "ReservedCode2": "",
    }
    return plain_json(label)


def plain_json(value: Any, sort_keys: bool = False) -> str:
    """``value`` as JSON without spaces; characters as themselves, but for those no XML or UTF-8 can hold."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=sort_keys, separators=(",", ":"), allow_nan=False)
    return re.sub(r"[\x7f-\x9f\ud800-\udfff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def description(prompt: str) -> str:
    """The prompt as ``dc:description``, which photo tools show under the picture."""
    return f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{escape(prompt)}</rdf:li></rdf:Alt></dc:description>'


def element(name: str, text: str) -> str:
    """One property; ``text`` is never markup."""
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
    """Properties of a packet by prefixed name ("starry:Recipe"), ours and the labels'; {} if it cannot be trusted.

    Entities and document types are refused (an XML bomb needs them), as is what is not XML or is far too long.
    """
    if len(data) > MAX_PACKET:
        return {}
    try:
        root = fromstring(data.strip(b"\0 \r\n\t"), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError, RecursionError):
        return {}
    found: dict[str, str] = {}
    for description_node in root.iter(f"{{{_PREFIXES['rdf']}}}Description"):
        pairs: Mapping[str, str | None] = {
            child.tag: "".join(child.itertext()).strip() for child in description_node
        }
        for key, value in [
            *description_node.attrib.items(),
            *pairs.items(),
        ]:  # photo tools rewrite one as the other
            for prefix, uri in _PREFIXES.items():
                if isinstance(key, str) and key.startswith(f"{{{uri}}}"):
                    found[f"{prefix}:{key.removeprefix(f'{{{uri}}}')}"] = value or ""
    return found
