"""A multipart upload through s3api, signed with version 2, so that no S3 library is needed.

    s3_multipart.py ENDPOINT ACCESS_KEY SECRET_KEY BUCKET KEY PART...

A PART is text, or @FILE.
"""
import base64
import hashlib
import hmac
import http.client
import re
import sys
from email.utils import formatdate
from urllib.parse import urlsplit

endpoint, access, secret, bucket, key, *parts = sys.argv[1:]
host = urlsplit(endpoint).netloc


def call(method, query, body=b""):
    date = formatdate(usegmt=True)
    resource = f"/{bucket}/{key}?{query}"
    text = f"{method}\n\n\n{date}\n{resource}"
    signature = base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha1).digest()).decode()
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request(method, resource, body, {"Date": date, "Authorization": f"AWS {access}:{signature}"})
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status != 200:
        sys.exit(f"{method} {resource}: {answer.status} {text}")
    return answer, text


def content(part):
    if part.startswith("@"):
        with open(part[1:], "rb") as file:
            return file.read()
    return part.encode()


upload = re.search("<UploadId>(.*)</UploadId>", call("POST", "uploads")[1])[1]
etags = [call("PUT", f"partNumber={n}&uploadId={upload}", content(part))[0].headers["ETag"] for n, part in enumerate(parts, 1)]
listed = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>" for n, etag in enumerate(etags, 1))
call("POST", f"uploadId={upload}", f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode())
