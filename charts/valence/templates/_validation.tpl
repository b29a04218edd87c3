{{/* What a schema cannot say: combinations that would install and then not work. */}}

{{- define "valence.validate" -}}
{{- $complaints := list -}}
{{- if not .Values.trial.enabled -}}
  {{- $secrets := list
        (list "jwt" "the keyring that signs access tokens")
        (list "database" "the Postgres URLs")
        (list "redis" "the Redis URL") -}}
  {{- range $secrets -}}
    {{- if not (index $.Values (index . 0)).existingSecret -}}
      {{- $complaints = append $complaints (printf "%s.existingSecret is empty: name a Secret with %s (the chart's README shows its keys), or set trial.enabled=true to try Valence with servers and secrets of its own." (index . 0) (index . 1)) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled .Values.database.existingSecret (not .Values.networkPolicy.database) -}}
  {{- $complaints = append $complaints "networkPolicy.database is empty: name the peers where your Postgres is (for example [{ipBlock: {cidr: 10.0.0.5/32}}]), or set networkPolicy.enabled=false." -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled .Values.redis.existingSecret (not .Values.networkPolicy.redis) -}}
  {{- $complaints = append $complaints "networkPolicy.redis is empty: name the peers where your Redis is (for example [{ipBlock: {cidr: 10.0.0.6/32}}]), or set networkPolicy.enabled=false." -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
  {{- $complaints = append $complaints "ingress.host is empty: set the host name under which people reach Valence, or set ingress.enabled=false." -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.tlsSecret) -}}
  {{- $complaints = append $complaints "ingress.tlsSecret is empty: passwords must not travel in the clear; name the Secret with the host's certificate." -}}
{{- end -}}
{{- if and .Values.gateway.enabled (not .Values.gateway.parentRefs) -}}
  {{- $complaints = append $complaints "gateway.parentRefs is empty: name the Gateway that the HTTPRoute belongs to." -}}
{{- end -}}
{{- if .Values.oidc.enabled -}}
  {{- range list "issuer" "clientId" "redirectUrl" "existingSecret" -}}
    {{- if not (index $.Values.oidc .) -}}
      {{- $complaints = append $complaints (printf "oidc.%s is empty: a login at an OpenID provider needs it, or set oidc.enabled=false." .) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if include "valence.ownPostgres" . -}}
  {{- range $service := list "owner" "auth" "inference" "worker" -}}
    {{- if not (index ($.Values.database.roles | default dict) $service) -}}
      {{- $complaints = append $complaints (printf "database.roles.%s is empty: a trial's Postgres has one role a service; name it." $service) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range list "inference" "batchWorker" -}}
  {{- $scaling := (index $.Values .).autoscaling -}}
  {{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
    {{- $complaints = append $complaints (printf "%s.autoscaling.minReplicas is over maxReplicas." .) -}}
  {{- end -}}
{{- end -}}
{{- with .Values.batchWorker -}}
  {{- if and .keda.enabled .autoscaling.enabled -}}
    {{- $complaints = append $complaints "batchWorker.keda.enabled and batchWorker.autoscaling.enabled are both true, and two scalers would fight: set batchWorker.autoscaling.enabled=false to scale by the chunks that wait." -}}
  {{- end -}}
  {{- if and .keda.enabled (gt (int .keda.minReplicas) (int .keda.maxReplicas)) -}}
    {{- $complaints = append $complaints "batchWorker.keda.minReplicas is over maxReplicas." -}}
  {{- end -}}
{{- end -}}
{{- $needed := int (include "valence.connections" .) -}}
{{- if gt $needed (int .Values.database.maxConnections) -}}
  {{- $complaints = append $complaints (printf "At most %d connections to Postgres may be open at once, but database.maxConnections is %d: allow more there, or lower maxReplicas, databasePoolSize or concurrency." $needed (int .Values.database.maxConnections)) -}}
{{- end -}}
{{- if $complaints -}}
  {{- fail (printf "\n\n%s\n" (join "\n" $complaints)) -}}
{{- end -}}
{{- end }}

{{/* Connections at the peak of a rollout: pods at their most, a quarter more of them, and to spare. */}}
{{- define "valence.connections" -}}
{{- $auth := add (int .Values.auth.replicas) (ceil (divf (int .Values.auth.replicas) 4)) -}}
{{- $inference := int (ternary .Values.inference.autoscaling.maxReplicas .Values.inference.replicas .Values.inference.autoscaling.enabled) -}}
{{- $worker := int (ternary .Values.batchWorker.autoscaling.maxReplicas .Values.batchWorker.replicas .Values.batchWorker.autoscaling.enabled) -}}
{{- if .Values.batchWorker.keda.enabled -}}
  {{- $worker = int .Values.batchWorker.keda.maxReplicas -}}
{{- end -}}
{{- $inference = add $inference (ceil (divf $inference 4)) -}}
{{- $worker = add $worker (ceil (divf $worker 4)) -}}
{{- /* A worker: one for each scoring process, the sweeper's, erasure's, retention's, the relay's, the probe's. */ -}}
{{- $perWorker := add (int .Values.batchWorker.concurrency) 5 -}}
{{- /* And the one that delivers webhooks. */ -}}
{{- $perWorker = add $perWorker (ternary 1 0 .Values.webhooks.enabled) -}}
{{- /* A web pod: its pool, and one to hear of revocations. */ -}}
{{- $perAuth := add1 (int .Values.auth.databasePoolSize) -}}
{{- $perInference := add1 (int .Values.inference.databasePoolSize) -}}
{{- add (mul $auth $perAuth) (mul $inference $perInference) (mul $worker $perWorker) 13 -}}
{{- end }}
