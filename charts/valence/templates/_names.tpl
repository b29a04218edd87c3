{{/* Names and labels, all of them. A template's folder is its component's name. */}}

{{- define "valence.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "valence.fullname" -}}
{{- $name := include "valence.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "valence.component" -}}
{{ .Template.Name | dir | base }}
{{- end }}

{{/* The name of the component whose folder this is. */}}
{{- define "valence.componentName" -}}
{{ include "valence.fullname" . }}-{{ include "valence.component" . }}
{{- end }}

{{- define "valence.commonLabels" -}}
{{ include "valence.releaseLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: valence
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "valence.releaseLabels" -}}
app.kubernetes.io/name: {{ include "valence.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "valence.labels" -}}
{{ include "valence.commonLabels" . }}
app.kubernetes.io/component: {{ include "valence.component" . }}
{{- end }}

{{- define "valence.selectorLabels" -}}
{{ include "valence.selectorOf" (list . (include "valence.component" .)) }}
{{- end }}

{{/* The selector of another component: (list $ "postgres"). */}}
{{- define "valence.selectorOf" -}}
{{ include "valence.releaseLabels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* The Secrets: the user's own, or those of a trial. */}}
{{- define "valence.keyringSecret" -}}
{{ .Values.jwt.existingSecret | default (printf "%s-keyring" (include "valence.fullname" .)) }}
{{- end }}

{{- define "valence.databaseSecret" -}}
{{ .Values.database.existingSecret | default (printf "%s-database" (include "valence.fullname" .)) }}
{{- end }}

{{- define "valence.redisSecret" -}}
{{ .Values.redis.existingSecret | default (printf "%s-redis" (include "valence.fullname" .)) }}
{{- end }}

{{- define "valence.adminSecret" -}}
{{ .Values.admin.existingSecret | default (printf "%s-admin" (include "valence.fullname" .)) }}
{{- end }}

{{/* "true" where a first superuser is made: a password was given, or a trial makes one up. */}}
{{- define "valence.makesAdmin" -}}
{{- if or .Values.admin.existingSecret (and .Values.trial.enabled .Values.trial.generateSecrets) }}true{{ end -}}
{{- end }}

{{/* "true" where the chart itself runs the server. */}}
{{- define "valence.ownPostgres" -}}
{{- if and .Values.trial.enabled (not .Values.database.existingSecret) }}true{{ end -}}
{{- end }}

{{- define "valence.ownValkey" -}}
{{- if and .Values.trial.enabled (not .Values.redis.existingSecret) }}true{{ end -}}
{{- end }}
