"""The documents are true: requirements name tests that exist, configuration keys are explained."""

from __future__ import annotations

import re

from tests.tidy.sources import ROOT, project_files, project_texts

NOT_YET = "not yet"
IDS = (
    [f"S{n}" for n in range(1, 17)]
    + [f"A{n}" for n in range(1, 7)]
    + [f"O{n}" for n in range(1, 4)]
    + [f"N{n}" for n in range(1, 7)]
    + [f"C{n}" for n in range(1, 4)]
    + [f"P{n}" for n in range(1, 4)]
    + ["G1", "G2"]
)
ROW = re.compile(r"^\| (?P<id>[A-Z]\d+) \| (?P<text>.+?) \| (?P<proof>.+) \|$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")


def _rows() -> dict[str, str]:
    text = project_texts()["docs/REQUIREMENTS.md"]
    return {found["id"]: found["proof"] for found in ROW.finditer(text)}


def _missing_proof(reference: str) -> bool:
    path, _, name = reference.partition("::")
    if path.endswith("/"):
        return not any(file.startswith(path) for file in project_files())
    text = project_texts().get(path)
    return text is None or (name != "" and not re.search(rf"\bdef {re.escape(name)}\(", text))


def test_every_requirement_has_its_row() -> None:
    assert list(_rows()) == IDS


def test_every_requirement_names_a_test_that_exists_or_says_not_yet() -> None:
    wrong = []
    for identifier, proof in _rows().items():
        references = re.findall(r"`(tests/[^`]+)`", proof)
        if not references and NOT_YET not in proof:
            wrong.append(f"{identifier}: neither a test nor '{NOT_YET}'")
        wrong += [f"{identifier}: no {name}" for name in references if _missing_proof(name)]
    assert not wrong, "\n".join(wrong)


def test_messages_of_sequence_diagrams_hold_no_semicolon() -> None:
    """Mermaid takes one for the end of the line, and shows an error instead of the picture."""
    wrong = [
        f"{path}: {line.strip()}"
        for path, text in project_texts().items()
        if path.endswith(".md")
        for diagram in re.findall(r"```mermaid\nsequenceDiagram\n(.*?)```", text, re.DOTALL)
        for line in diagram.splitlines()
        if ";" in line
    ]
    assert not wrong, "\n".join(wrong)


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{path}: {target}"
        for path, text in project_texts().items()
        if path.endswith(".md")
        for target in LINK.findall(text)
        if not ((ROOT / path).parent / target).exists()
    ]
    assert not broken, "\n".join(broken)
