"""A check of ours beside those of schemathesis: a failure has a code that its route lists under its status."""

import schemathesis


@schemathesis.check
def listed_error_code(ctx, response, case):
    if response.status_code < 400:
        return
    code = response.json().get("error", {}).get("code")
    # A method that the route does not have is not in the document. A degraded health has no error code.
    if code is None or code == "METHOD_NOT_ALLOWED":
        return
    responses = case.operation.definition.raw["responses"]
    listed = responses.get(str(response.status_code), {}).get("x-error-codes", [])
    assert code in listed, f"{code} is not listed under {response.status_code}: {listed}"
