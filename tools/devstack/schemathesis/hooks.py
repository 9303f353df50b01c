"""What the configuration file cannot express: other callers than the owner, and a new key for every create."""

import os
import uuid

import schemathesis

# NDJSON is sent as text.
schemathesis.serializer.alias("application/x-ndjson", "text/plain")

OWNER = f"Bearer {os.environ['FUZZ_TOKEN']}"
# Other callers, where the owner's request would break the requests after it.
OTHERS = {
    "signOut": os.environ["FUZZ_LEAVING_TOKEN"],
    # A new session closes one's oldest.
    "openChatSession": os.environ["FUZZ_MEMBER_TOKEN"],
}


@schemathesis.hook
def before_call(context, case, kwargs):
    token = OTHERS.get(case.operation.definition.raw.get("operationId"))
    if token and case.headers.get("Authorization") == OWNER:
        case.headers["Authorization"] = f"Bearer {token}"
    # The same key with another body is refused, and the generator reuses few keys.
    if case.meta and case.meta.generation.mode.is_positive and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
