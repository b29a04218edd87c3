{{/*
The Secrets of a trial are created once: each is a hook that is rendered only if its Secret is missing.
Therefore it belongs to no revision: an upgrade does not touch it, a rollback cannot bring back keys
that were rotated since, and `helm uninstall` keeps it, as it keeps the volumes. Where `lookup` has no
cluster (`helm template`, GitOps) each render has new values: use existing Secrets there, or set
trial.generateSecrets=false and create them as k8s/install does.
*/}}

{{- define "valence.generatesSecret" -}}
{{- $name := index . 1 -}}
{{- with index . 0 -}}
{{- if and .Values.trial.enabled .Values.trial.generateSecrets (not (lookup "v1" "Secret" .Release.Namespace $name)) }}true{{ end -}}
{{- end -}}
{{- end }}

{{- define "valence.generatedSecretMetadata" -}}
labels: {{- include "valence.commonLabels" . | nindent 2 }}
annotations:
  helm.sh/hook: pre-install,pre-upgrade
  helm.sh/hook-weight: "-5"
  helm.sh/resource-policy: keep
{{- end }}

{{/* 192 random bits in characters that are safe in a URL. */}}
{{- define "valence.randomPassword" -}}
{{ randBytes 24 | replace "+" "-" | replace "/" "_" }}
{{- end }}
