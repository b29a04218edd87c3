"""Login with an OpenID provider: authorization code with PKCE, and nothing kept between its steps.

`transactions` is what the browser carries from one step to the other, `provider` talks to the
provider, `id_tokens` decides whether to believe it, `identities` finds or makes the account.
"""
