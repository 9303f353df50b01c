"""What the configuration file cannot say: who asks where it is not the owner, and a key of its own for every create."""

import os
import uuid

import schemathesis

# Lines of JSON are text.
schemathesis.serializer.alias("application/x-ndjson", "text/plain")

OWNER = f"Bearer {os.environ['FUZZ_TOKEN']}"
# Who asks where the owner would cut off the requests after it.
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
    # One key for two bodies is refused, and a generator tries few keys.
    if case.meta and case.meta.generation.mode.is_positive and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
