"""Login with an OpenID provider: authorization code flow with PKCE, without state on the server.

`login_state` is the state that the browser carries between the two steps. `provider` sends requests
to the provider, `id_tokens` verifies its ID token, `identities` finds or creates the account.
"""
