#include "status.h"

const char *tether_status_text(tether_status_t status)
{
    switch (status) {
#define X(name, text)      \
    case TETHER_##name:    \
        return text;
        TETHER_STATUS_LIST(X)
#undef X
    }
    return "unknown status";
}
