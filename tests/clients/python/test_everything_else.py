"""Everything else of the API, in the SDK's own calls: files, batches, skills, models."""

import time

import anthropic
import pytest

from scripted import BASE_URL, MODEL, ask, simulate

SKILL = b"---\nname: tides\ndescription: Knows the tides.\n---\nLook it up.\n"


def both(client, name):
    """The same resource as it is now and as it was in its beta, with the old header and shapes."""
    return [getattr(client, name), getattr(client.beta, name)]


@pytest.mark.parametrize("shape", [0, 1])
@pytest.mark.parametrize("size", [40, 300_000])
def test_a_file_is_uploaded_listed_downloaded_and_deleted(client, shape, size):
    files = both(client, "files")[shape]
    content = b"tide " * (size // 5)
    made = files.upload(file=("output.bin", content, "application/octet-stream"))
    assert (made.type, made.filename, made.size_bytes, made.downloadable) == ("file", "output.bin", len(content), True)
    assert files.retrieve_metadata(made.id).id == made.id
    assert made.id in [file.id for file in files.list(limit=1)]
    assert files.download(made.id).read() == content
    assert files.delete(made.id).type == "file_deleted"
    with pytest.raises(anthropic.NotFoundError):
        files.retrieve_metadata(made.id)


def test_a_file_is_written_to_disk_as_it_comes(client, tmp_path):
    content = b"ebb and flood\n" * 200_000
    made = client.files.upload(file=("output.txt", content))
    with client.files.with_streaming_response.download(made.id) as answer:
        answer.stream_to_file(tmp_path / "it")
    assert (tmp_path / "it").read_bytes() == content
    client.files.delete(made.id)


def ended(batches, batch_id):
    """The batch, once it has ended."""
    until = time.monotonic() + 10
    while (batch := batches.retrieve(batch_id)).processing_status != "ended":
        assert time.monotonic() < until, batch
        time.sleep(0.05)
    return batch


@pytest.mark.parametrize("shape", [0, 1])
def test_a_batch_is_made_polled_and_its_results_are_read(client, shape):
    batches = [client.messages.batches, client.beta.messages.batches][shape]
    requests = [
        {"custom_id": "good", "params": ask("one")},
        {"custom_id": "bad", "params": {"model": MODEL, "max_tokens": 10, "messages": []}},
    ]
    made = batches.create(requests=requests, extra_headers=simulate(batch_ms=200))
    assert (made.processing_status, made.request_counts.processing, made.results_url) == ("in_progress", 2, None)
    batch = ended(batches, made.id)
    # The SDK goes where this says, with the key it has.
    assert batch.results_url.startswith(BASE_URL)
    results = {line.custom_id: line.result for line in batches.results(made.id)}
    assert results["good"].type == "succeeded" and results["good"].message.content[0].text
    assert results["bad"].type == "errored" and results["bad"].error.error.type == "invalid_request_error"
    assert made.id in [batch.id for batch in batches.list(limit=1)]
    assert batches.delete(made.id).type == "message_batch_deleted"


def test_a_batch_is_cancelled(client):
    batches = client.messages.batches
    made = batches.create(requests=[{"custom_id": "a", "params": ask()}], extra_headers=simulate(batch_ms=60_000))
    assert batches.cancel(made.id).processing_status == "canceling"
    ended(batches, made.id)
    assert [line.result.type for line in batches.results(made.id)] == ["canceled"]
    batches.delete(made.id)


@pytest.mark.parametrize("shape", [0, 1])
def test_a_skill_and_its_versions(client, shape):
    skills = both(client, "skills")[shape]
    made = skills.create(files=[("tides/SKILL.md", SKILL, "text/markdown")])
    assert skills.retrieve(made.id).id == made.id
    second = skills.versions.create(made.id, files=[("tides/SKILL.md", SKILL, "text/markdown")])
    versions = [version.id for version in skills.versions.list(made.id)]
    assert versions[0] == second.id and len(versions) == 2
    assert made.id in [skill.id for skill in skills.list(source="custom")]
    for version in versions:
        skills.versions.delete(version, skill_id=made.id)
    assert skills.delete(made.id).id == made.id
    assert {"pptx", "xlsx", "docx", "pdf"} <= {skill.id for skill in skills.list(source="anthropic")}


def test_models_have_their_beta_too(client):
    assert client.beta.models.retrieve(MODEL).id == client.models.retrieve(MODEL).id
    assert [model.id for model in client.beta.models.list(limit=2).data] == [
        model.id for model in client.models.list(limit=2).data
    ]


def test_a_name_that_is_taken_is_a_conflict(client):
    made = client.skills.create(files=[("tides/SKILL.md", SKILL)], display_name="taken")
    with pytest.raises(anthropic.ConflictError) as caught:
        client.skills.create(files=[("tides/SKILL.md", SKILL)], display_name="taken")
    assert caught.value.body["error"]["details"]["error_code"] == "skill_name_taken"
    for version in client.skills.versions.list(made.id):
        client.skills.versions.delete(version.id, skill_id=made.id)
    client.skills.delete(made.id)
