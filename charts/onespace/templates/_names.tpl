{{- define "onespace.labels" -}}
app.kubernetes.io/name: onespace
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: onespace
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* What selects the pods of one component: (dict "root" $ "component" "operator") */}}
{{- define "onespace.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: onespace
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* (dict "root" $ "image" .Values.operator.image) */}}
{{- define "onespace.image" -}}
{{- $image := .root.Values.image -}}
{{- printf "%s/%s" (required "image.registry is needed: where your images are, like registry.example.com/onespace" $image.registry) .image.name -}}
{{- if .image.digest -}}@{{ .image.digest }}{{- else -}}:{{ $image.tag | default .root.Chart.AppVersion }}{{- end -}}
{{- end }}

{{- define "onespace.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The agents' labels are fixed: the operator looks for them. So there is one release in a namespace, and names can be plain. */}}
{{- define "onespace.operator" -}}onespace-operator{{- end }}
{{- define "onespace.agent" -}}onespace-node-agent{{- end }}

{{/* Namespaces other than the release's own whose policies count, as JSON; "*" never is among them. */}}
{{- define "onespace.otherNamespaces" -}}
{{- $others := list -}}
{{- range .Values.operator.watchNamespaces -}}
{{- if and (ne . "*") (ne . $.Release.Namespace) -}}{{- $others = append $others . -}}{{- end -}}
{{- end -}}
{{- if has "*" .Values.operator.watchNamespaces -}}{{- $others = list -}}{{- end -}}
{{- dict "namespaces" $others | toJson -}}
{{- end }}

{{/* Every pool as a whole, as JSON: what it sets itself replaces the default, empty or not. */}}
{{- define "onespace.pools" -}}
{{- $pools := dict -}}
{{- range $name, $own := .Values.agents.pools -}}
{{- if kindIs "map" $own -}}
{{- $pool := deepCopy $.Values.agents.poolDefaults -}}
{{- range $key, $value := $own -}}{{- $_ := set $pool $key $value -}}{{- end -}}
{{- $_ := set $pools $name $pool -}}
{{- end -}}
{{- end -}}
{{- if not $pools -}}{{- $_ := set $pools "default" .Values.agents.poolDefaults -}}{{- end -}}
{{- toJson $pools -}}
{{- end }}

{{/* Where no remote may be: values cannot take loopback, link-local and clouds' metadata services (Amazon's, Google's, Oracle's over
     IPv6; Alibaba's; Azure's) from the list, because Helm replaces lists. */}}
{{- define "onespace.denyRemotes" -}}
{{- $always := list "127.0.0.0/8" "::1/128" "169.254.0.0/16" "fe80::/10" "fd00:ec2::254/128" "fd20:ce::254/128" "fd00:c1::a9fe:a9fe/128" "100.100.100.200/32" "168.63.129.16/32" -}}
{{- concat $always (.Values.agents.denyRemotes | default list) | uniq | join "," -}}
{{- end }}
