{{/* Combinations of values that a schema cannot rule out: they would install, but not work. */}}

{{- define "valence.validate" -}}
{{- $errors := list -}}
{{- if not .Values.trial.enabled -}}
  {{- $secrets := list
        (list "jwt" "the keyring that signs access tokens")
        (list "database" "the Postgres URLs")
        (list "redis" "the Redis URL") -}}
  {{- range $secrets -}}
    {{- if not (index $.Values (index . 0)).existingSecret -}}
      {{- $errors = append $errors (printf "%s.existingSecret is empty: set it to the name of a Secret with %s (the chart's README shows its keys), or set trial.enabled=true to try Valence with its own servers and Secrets." (index . 0) (index . 1)) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled .Values.database.existingSecret (not .Values.networkPolicy.database) -}}
  {{- $errors = append $errors "networkPolicy.database is empty: list the peers that are your Postgres (for example [{ipBlock: {cidr: 10.0.0.5/32}}]), or set networkPolicy.enabled=false." -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled .Values.redis.existingSecret (not .Values.networkPolicy.redis) -}}
  {{- $errors = append $errors "networkPolicy.redis is empty: list the peers that are your Redis (for example [{ipBlock: {cidr: 10.0.0.6/32}}]), or set networkPolicy.enabled=false." -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
  {{- $errors = append $errors "ingress.host is empty: set the public host name of Valence, or set ingress.enabled=false." -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.tlsSecret) -}}
  {{- $errors = append $errors "ingress.tlsSecret is empty: set it to the name of the Secret with the host's certificate, so that passwords are not sent in the clear." -}}
{{- end -}}
{{- if and .Values.gateway.enabled (not .Values.gateway.parentRefs) -}}
  {{- $errors = append $errors "gateway.parentRefs is empty: list the Gateway that the HTTPRoute attaches to." -}}
{{- end -}}
{{- if .Values.oidc.enabled -}}
  {{- range list "issuer" "clientId" "redirectUrl" "existingSecret" -}}
    {{- if not (index $.Values.oidc .) -}}
      {{- $errors = append $errors (printf "oidc.%s is empty: set it, since login with an OpenID provider needs it, or set oidc.enabled=false." .) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if include "valence.bundledPostgres" . -}}
  {{- range $service := list "owner" "auth" "inference" "worker" -}}
    {{- if not (index ($.Values.database.roles | default dict) $service) -}}
      {{- $errors = append $errors (printf "database.roles.%s is empty: set it, since the Postgres of a trial has one role for each service." $service) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range list "inference" "batchWorker" -}}
  {{- $scaling := (index $.Values .).autoscaling -}}
  {{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
    {{- $errors = append $errors (printf "%s.autoscaling.minReplicas is greater than maxReplicas." .) -}}
  {{- end -}}
{{- end -}}
{{- with .Values.batchWorker -}}
  {{- if and .keda.enabled .autoscaling.enabled -}}
    {{- $errors = append $errors "batchWorker.keda.enabled and batchWorker.autoscaling.enabled are both true, and the two autoscalers would conflict: set batchWorker.autoscaling.enabled=false to scale by the waiting chunks." -}}
  {{- end -}}
  {{- if and .keda.enabled (gt (int .keda.minReplicas) (int .keda.maxReplicas)) -}}
    {{- $errors = append $errors "batchWorker.keda.minReplicas is greater than maxReplicas." -}}
  {{- end -}}
{{- end -}}
{{- $needed := int (include "valence.peakConnections" .) -}}
{{- if gt $needed (int .Values.database.maxConnections) -}}
  {{- $errors = append $errors (printf "The pods can open up to %d connections to Postgres, but database.maxConnections is %d: raise it, or lower maxReplicas, databasePoolSize or concurrency." $needed (int .Values.database.maxConnections)) -}}
{{- end -}}
{{- if $errors -}}
  {{- fail (printf "\n\n%s\n" (join "\n" $errors)) -}}
{{- end -}}
{{- end }}

{{/*
Connections to Postgres at the peak of a rollout: the maximum of pods, a surge of a quarter more, and 13
for superusers, people and migrations.
*/}}
{{- define "valence.peakConnections" -}}
{{- $auth := add (int .Values.auth.replicas) (ceil (divf (int .Values.auth.replicas) 4)) -}}
{{- $inference := int (ternary .Values.inference.autoscaling.maxReplicas .Values.inference.replicas .Values.inference.autoscaling.enabled) -}}
{{- $worker := int (ternary .Values.batchWorker.autoscaling.maxReplicas .Values.batchWorker.replicas .Values.batchWorker.autoscaling.enabled) -}}
{{- if .Values.batchWorker.keda.enabled -}}
  {{- $worker = int .Values.batchWorker.keda.maxReplicas -}}
{{- end -}}
{{- $inference = add $inference (ceil (divf $inference 4)) -}}
{{- $worker = add $worker (ceil (divf $worker 4)) -}}
{{- /* A worker: one for each scoring process; sweeper, erasure, retention, outbox relay, health check. */ -}}
{{- $perWorker := add (int .Values.batchWorker.concurrency) 5 -}}
{{- /* One for webhook deliveries. */ -}}
{{- $perWorker = add $perWorker (ternary 1 0 .Values.webhooks.enabled) -}}
{{- /* A web pod: its pool, and one to poll for revocations. */ -}}
{{- $perAuth := add1 (int .Values.auth.databasePoolSize) -}}
{{- $perInference := add1 (int .Values.inference.databasePoolSize) -}}
{{- add (mul $auth $perAuth) (mul $inference $perInference) (mul $worker $perWorker) 13 -}}
{{- end }}
